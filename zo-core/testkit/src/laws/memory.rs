//! Laws of [`zo_traits::MemoryStore`].
