//! A weight matrix in memory, and its product with a few rows of activations: where nearly all of the time goes.
//!
//! The engine has products for every format of a GGUF file, but on x86 it chooses most of their kernels when it is compiled, so
//! that a program built for any such processor gets the slow ones. Here weights are held as blocks of 32 signed bytes
//! with a scale (the layout of `Q8_0`, at most 0.4 % of a block's largest value away from the file), activations are brought into
//! the same form, and the kernel is chosen when the program runs.

use candle_core::{
    CpuStorage, CustomOp1, Device, Layout, Result, Shape, Storage, Tensor, bail, quantized::QTensor,
};
use pulp::Arch;
use rayon::prelude::*;

/// Values that share a scale.
const BLOCK: usize = 32;
/// Rows that a thread takes at a time, at least.
const GRAIN: usize = 64;

type Bytes = [i8; BLOCK];

/// `rows` times `columns` weights.
#[derive(Debug)]
pub(super) struct Matrix {
    rows: usize,
    columns: usize,
    /// Blocks of a row.
    blocks: usize,
    bytes: Vec<Bytes>,
    scales: Vec<f32>,
}

impl Matrix {
    /// Takes the weights of a file's tensor over.
    pub(super) fn new(tensor: &QTensor) -> Result<Self> {
        let (rows, columns) = tensor.shape().dims2()?;
        if rows == 0 || columns == 0 {
            bail!("a matrix of {rows} by {columns}");
        }
        let values = tensor.dequantize(&Device::Cpu)?;
        let (storage, layout) = values.storage_and_layout();
        match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(cpu), Some((from, to))) => match cpu.as_slice::<f32>()?.get(from..to) {
                Some(values) => Self::from_rows(columns, values),
                None => bail!("the weights are cut"),
            },
            _ => bail!("the weights are not in memory"),
        }
    }

    fn from_rows(columns: usize, values: &[f32]) -> Result<Self> {
        let blocks = columns.div_ceil(BLOCK);
        let rows = values.len() / columns.max(1);
        let mut bytes = vec![[0; BLOCK]; rows * blocks];
        let mut scales = vec![0.0; rows * blocks];
        bytes
            .par_chunks_mut(blocks)
            .zip(scales.par_chunks_mut(blocks))
            .zip(values.par_chunks(columns))
            .for_each(|((bytes, scales), row)| shrink(row, bytes, scales));
        if scales.iter().any(|s| !s.is_finite()) {
            bail!("the weights are not all finite numbers");
        }
        Ok(Self { rows, columns, blocks, bytes, scales })
    }

    /// `input` (... by columns) times the transpose of this: ... by rows.
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        input.apply_op1_no_bwd(self)
    }

    /// The rows with these numbers, as they stand for tokens.
    pub(super) fn pick(&self, rows: &[u32]) -> Result<Tensor> {
        let mut out = Vec::with_capacity(rows.len() * self.columns);
        for &row in rows {
            let from = row as usize * self.blocks;
            let (Some(bytes), Some(scales)) =
                (self.bytes.get(from..from + self.blocks), self.scales.get(from..from + self.blocks))
            else {
                bail!("there is no row {row}, there are {}", self.rows);
            };
            let values = bytes.iter().zip(scales).flat_map(|(b, s)| b.iter().map(move |b| f32::from(*b) * s));
            out.extend(values.take(self.columns));
        }
        Tensor::from_vec(out, (rows.len(), self.columns), &Device::Cpu)
    }
}

impl CustomOp1 for Matrix {
    fn name(&self) -> &'static str {
        "bytes-matmul"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((from, to)) = layout.contiguous_offsets() else {
            bail!("the activations are not contiguous")
        };
        let Some(input) = storage.as_slice::<f32>()?.get(from..to) else { bail!("the activations are cut") };
        let mut shape = layout.shape().dims().to_vec();
        match shape.last_mut() {
            Some(last) if *last == self.columns => *last = self.rows,
            _ => bail!("activations of {:?} for {} columns", layout.shape(), self.columns),
        }
        Ok((CpuStorage::F32(self.multiply(input)), shape.into()))
    }
}

impl Matrix {
    fn multiply(&self, input: &[f32]) -> Vec<f32> {
        let count = input.len() / self.columns;
        let mut bytes = vec![[0; BLOCK]; count * self.blocks];
        let mut scales = vec![0.0; count * self.blocks];
        for ((bytes, scales), row) in
            bytes.chunks_mut(self.blocks).zip(scales.chunks_mut(self.blocks)).zip(input.chunks(self.columns))
        {
            shrink(row, bytes, scales);
        }
        let arch = Arch::new();
        // Row-major by weight row, so that threads write apart from each other; turned around below.
        let mut out = vec![0.0; self.rows * count];
        out.par_chunks_mut(GRAIN * count)
            .zip(self.bytes.par_chunks(GRAIN * self.blocks))
            .zip(self.scales.par_chunks(GRAIN * self.blocks))
            .for_each(|((out, weights), weight_scales)| {
                for ((out, w), ws) in out
                    .chunks_mut(count)
                    .zip(weights.chunks(self.blocks))
                    .zip(weight_scales.chunks(self.blocks))
                {
                    dots(arch, w, ws, &bytes, &scales, out);
                }
            });
        if count == 1 {
            return out;
        }
        let mut turned = vec![0.0; out.len()];
        for (row, values) in out.chunks(count).enumerate() {
            for (to, value) in turned.iter_mut().skip(row).step_by(self.rows).zip(values) {
                *to = *value;
            }
        }
        turned
    }
}

/// Floats to bytes: each block is scaled so that its largest value is 127.
fn shrink(row: &[f32], bytes: &mut [Bytes], scales: &mut [f32]) {
    for ((values, bytes), scale) in row.chunks(BLOCK).zip(bytes).zip(scales) {
        let largest = values.iter().fold(0.0f32, |max, v| max.max(v.abs()));
        *scale = largest / 127.0;
        let by = if *scale > 0.0 { scale.recip() } else { 0.0 };
        for (byte, value) in bytes.iter_mut().zip(values) {
            *byte = (value * by).round_ties_even() as i8;
        }
    }
}

/// One row of weights times each row of activations.
fn dots(arch: Arch, w: &[Bytes], ws: &[f32], x: &[Bytes], xs: &[f32], out: &mut [f32]) {
    let rows = x.chunks(w.len()).zip(xs.chunks(w.len())).zip(out);
    #[cfg(target_arch = "x86_64")]
    if let Arch::V3(simd) = arch {
        return simd.vectorize(
            #[inline(always)]
            || rows.for_each(|((x, xs), out)| *out = x86::dot(simd, w, ws, x, xs)),
        );
    }
    arch.dispatch(|| rows.for_each(|((x, xs), out)| *out = dot(w, ws, x, xs)));
}

/// Sums of products of bytes, four partial sums to a block, which a compiler turns into vector code.
#[inline(always)]
fn dot(w: &[Bytes], ws: &[f32], x: &[Bytes], xs: &[f32]) -> f32 {
    let mut sum = [0.0f32; 4];
    for ((w, ws), (x, xs)) in w.iter().zip(ws).zip(x.iter().zip(xs)) {
        let scale = ws * xs;
        for (sum, (w, x)) in sum.iter_mut().zip(w.chunks_exact(8).zip(x.chunks_exact(8))) {
            let part: i32 = w.iter().zip(x).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum();
            *sum += part as f32 * scale;
        }
    }
    sum.iter().sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Bytes;
    use pulp::{cast, f32x8, x86::V3};

    /// As [`super::dot`] with AVX2. Products of an unsigned and a signed byte are what there is: the sign of the weight goes to
    /// the activation. Two products of at most 127 by 127 fit 16 bits.
    #[inline(always)]
    pub(super) fn dot(simd: V3, w: &[Bytes], ws: &[f32], x: &[Bytes], xs: &[f32]) -> f32 {
        let ones = simd.splat_i16x16(1);
        let mut sum = simd.splat_f32x8(0.0);
        for ((w, ws), (x, xs)) in w.iter().zip(ws).zip(x.iter().zip(xs)) {
            let (w, x) = (cast(*w), cast(*x));
            let pairs = simd
                .avx2
                ._mm256_maddubs_epi16(simd.avx2._mm256_abs_epi8(w), simd.avx2._mm256_sign_epi8(x, w));
            let quads = simd.multiply_wrapping_add_adjacent_i16x16(cast(pairs), ones);
            let scale = simd.splat_f32x8(ws * xs);
            sum = simd.mul_add_f32x8(simd.convert_i32x8_to_f32x8(quads), scale, sum);
        }
        let sum: [f32; 8] = cast::<f32x8, _>(sum);
        sum.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize, seed: u32) -> Vec<f32> {
        let next = |n: &mut u32| {
            *n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some(*n as f32 / u32::MAX as f32 - 0.5)
        };
        let mut state = seed;
        (0..len).filter_map(|_| next(&mut state)).collect()
    }

    #[test]
    fn products_are_near_the_exact_ones() {
        // Widths that are no multiple of a block, and fewer and more rows than a thread takes.
        for (rows, columns, count) in [(1, 1, 1), (3, 31, 2), (70, 96, 1), (200, 100, 5)] {
            let (w, x) = (values(rows * columns, 1), values(count * columns, 2));
            let got = Matrix::from_rows(columns, &w).unwrap().multiply(&x);
            assert_eq!(got.len(), rows * count);
            for (n, got) in got.iter().enumerate() {
                let (x, w) = (&x[n / rows * columns..][..columns], &w[n % rows * columns..][..columns]);
                let exact: f32 = x.iter().zip(w).map(|(a, b)| a * b).sum();
                assert!(
                    (got - exact).abs() < 0.002 * columns as f32,
                    "{rows} {columns} {count}: {got} {exact}"
                );
            }
        }
    }

    #[test]
    fn all_kernels_agree() {
        let matrix = Matrix::from_rows(256, &values(512, 3)).unwrap();
        let ((w, x), (ws, xs)) = (matrix.bytes.split_at(8), matrix.scales.split_at(8));
        let mut out = [0.0];
        dots(Arch::new(), w, ws, x, xs, &mut out);
        assert!((out[0] - dot(w, ws, x, xs)).abs() < 1e-4, "{out:?}");
    }

    #[test]
    fn hostile_weights_are_refused_and_rows_are_checked() {
        assert!(Matrix::from_rows(2, &[1.0, f32::INFINITY]).is_err());
        assert!(Matrix::from_rows(2, &[f32::NAN, 1.0]).unwrap().multiply(&[1.0, 1.0])[0].is_finite());
        let matrix = Matrix::from_rows(2, &[1.0, 2.0, 3.0, 4.0]).unwrap();
        let row: Vec<f32> = matrix.pick(&[1]).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!((row[0] - 3.0).abs() < 0.05 && (row[1] - 4.0).abs() < 0.05, "{row:?}");
        assert!(matrix.pick(&[2]).is_err());
    }
}
