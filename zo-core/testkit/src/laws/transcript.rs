//! Laws of [`zo_traits::Transcript`].
