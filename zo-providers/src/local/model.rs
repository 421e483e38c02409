//! The transformer: tokens in, the scores of the next token out, with a cache of what it has read.
//!
//! One decoder serves the families that differ in small things only (see [`FAMILIES`]). The weights come from the file by the
//! names that llama.cpp gives them.

use super::{
    attention::Cache,
    gguf::{Head, corrupt, unsupported},
    matrix::Matrix,
};
use candle_core::{DType, Device, Tensor, quantized::gguf_file::TensorInfo};
use candle_nn::{ops, rotary_emb};
use std::{fs::File, io::BufReader};
use zo_traits::{Error, ErrorKind, Result};

/// `general.architecture`, and whether its rotary embedding turns the two halves of a head against each other (else
/// neighbours). After `llama_model_rope_type` of llama.cpp.
pub(super) const FAMILIES: [(&str, bool); 3] = [("llama", false), ("qwen2", true), ("qwen3", true)];

/// Most tokens that are read at once: bounds what the reading takes, and how long it cannot be stopped.
const STRIDE: usize = 64;

/// The sizes of a model, checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shape {
    layers: usize,
    width: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head: usize,
    epsilon: f32,
    halves: bool,
    base: f32,
    stretch: f32,
    /// Longest text it was made for, in tokens.
    pub(super) context: usize,
    pub(super) vocabulary: usize,
}

impl Shape {
    pub(super) fn new(head: &Head) -> Result<Self> {
        let family = head.text("general.architecture")?;
        let Some((_, halves)) = FAMILIES.iter().find(|(name, _)| *name == family) else {
            let known = FAMILIES.map(|(name, _)| name).join(", ");
            return Err(unsupported(format_args!(
                "the model is of the family {family:?}; known are {known}"
            )));
        };
        let key = |name: &str| format!("{family}.{name}");
        let size = |name: &str, most: usize| -> Result<usize> {
            let n = head.number(&key(name))?;
            let ok = usize::try_from(n).ok().filter(|n| (1..=most).contains(n));
            ok.ok_or_else(|| {
                corrupt(format_args!("{family}.{name} is {n}, which is not within 1 and {most}"))
            })
        };
        if head.number(&key("expert_count")).is_ok_and(|n| n > 0) {
            return Err(unsupported("the model is a mixture of experts"));
        }
        let (width, heads) = (size("embedding_length", 1 << 16)?, size("attention.head_count", 1 << 10)?);
        let kv_heads = size("attention.head_count_kv", heads)
            .or_else(|e| if head.has(&key("attention.head_count_kv")) { Err(e) } else { Ok(heads) })?;
        let each = if head.has(&key("attention.key_length")) {
            size("attention.key_length", 1 << 10)?
        } else {
            width / heads
        };
        let mut context = size("context_length", 1 << 24)?;
        if head.has(&key("attention.sliding_window")) {
            // Attention is to everything here: the same thing as long as the window is not left.
            context = context.min(size("attention.sliding_window", 1 << 24)?);
        }
        let stretch = match head.text(&key("rope.scaling.type")).unwrap_or("none") {
            "none" => 1.0,
            "linear" => head.float(&key("rope.scaling.factor"))?,
            other => {
                return Err(unsupported(format_args!("positions are scaled by {other:?}; known is linear")));
            }
        };
        let shape = Self {
            layers: size("block_count", 1 << 10)?,
            width,
            hidden: size("feed_forward_length", 1 << 20)?,
            heads,
            kv_heads,
            head: each,
            epsilon: head.float(&key("attention.layer_norm_rms_epsilon"))?,
            halves: *halves,
            base: head.float(&key("rope.freq_base")).unwrap_or(10_000.0),
            stretch,
            context,
            vocabulary: head.tokens()?.len(),
        };
        let turned = head.number(&key("rope.dimension_count")).unwrap_or(each as u64);
        if each == 0 || each % 2 != 0 || heads % kv_heads != 0 || turned != each as u64 {
            return Err(unsupported(format_args!(
                "{heads} heads of {each} values, of which {turned} are turned, share {kv_heads} keys"
            )));
        }
        let positive = |v: f32| v.is_finite() && v > 0.0;
        if !positive(shape.base) || !positive(shape.stretch) || !positive(shape.epsilon) {
            return Err(corrupt("a number of the model is not a positive one"));
        }
        Ok(shape)
    }
}

#[derive(Debug)]
struct Linear {
    weight: Matrix,
    bias: Option<Tensor>,
}

impl Linear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = self.weight.forward(x)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    q_norm: Option<Tensor>,
    k_norm: Option<Tensor>,
    out: Linear,
    ffn_norm: Tensor,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    cache: Cache,
}

/// The weights, and the cache.
#[derive(Debug)]
pub(super) struct Model {
    shape: Shape,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Tensor,
    output: Option<Matrix>,
    /// Turns of a head's pairs of values per position.
    turns: Vec<f32>,
    /// What the cache holds.
    read: Vec<u32>,
}

fn engine(e: candle_core::Error) -> Error {
    corrupt(format_args!("the engine: {e}"))
}

/// Reads tensors, each of the size that it has to have.
struct Weights<'a> {
    head: &'a Head,
    file: BufReader<File>,
}

impl Weights<'_> {
    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.head
            .content
            .tensor_infos
            .get(name)
            .ok_or_else(|| corrupt(format_args!("there is no tensor {name}")))
    }

    fn tensor(&mut self, name: &str, dims: &[usize]) -> Result<candle_core::quantized::QTensor> {
        let info = self.info(name)?;
        if info.shape.dims() != dims {
            let is = info.shape.dims();
            return Err(corrupt(format_args!("tensor {name} is of {is:?}, not {dims:?}")));
        }
        self.head
            .content
            .tensor(&mut self.file, name, &Device::Cpu)
            .map_err(|e| corrupt(format_args!("tensor {name}: {e}")))
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix> {
        let name = format!("{name}.weight");
        let tensor = self.tensor(&name, &[rows, columns])?;
        Matrix::new(&tensor).map_err(|e| corrupt(format_args!("tensor {name}: {e}")))
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Tensor> {
        let tensor = self.tensor(name, &[len])?.dequantize(&Device::Cpu);
        tensor.and_then(|t| t.to_dtype(DType::F32)).map_err(|e| corrupt(format_args!("tensor {name}: {e}")))
    }

    fn vector_if(&mut self, name: &str, len: usize) -> Result<Option<Tensor>> {
        if self.info(name).is_ok() { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    fn linear(&mut self, name: &str, rows: usize, columns: usize) -> Result<Linear> {
        let weight = self.matrix(name, rows, columns)?;
        Ok(Linear { weight, bias: self.vector_if(&format!("{name}.bias"), rows)? })
    }
}

impl Model {
    /// Reads the weights. `go_on` is asked before each layer.
    pub(super) fn load(head: &Head, file: File, mut go_on: impl FnMut() -> Result<()>) -> Result<Self> {
        let shape = Shape::new(head)?;
        let mut from = Weights { head, file: BufReader::with_capacity(1 << 20, file) };
        let (width, hidden) = (shape.width, shape.hidden);
        let (queries, keys) = (shape.heads * shape.head, shape.kv_heads * shape.head);
        let mut layers = Vec::new();
        for n in 0..shape.layers {
            go_on()?;
            let name = |part: &str| format!("blk.{n}.{part}");
            layers.push(Layer {
                attention_norm: from.vector(&name("attn_norm.weight"), width)?,
                q: from.linear(&name("attn_q"), queries, width)?,
                k: from.linear(&name("attn_k"), keys, width)?,
                v: from.linear(&name("attn_v"), keys, width)?,
                q_norm: from.vector_if(&name("attn_q_norm.weight"), shape.head)?,
                k_norm: from.vector_if(&name("attn_k_norm.weight"), shape.head)?,
                out: from.linear(&name("attn_output"), width, queries)?,
                ffn_norm: from.vector(&name("ffn_norm.weight"), width)?,
                gate: from.matrix(&name("ffn_gate"), hidden, width)?,
                up: from.matrix(&name("ffn_up"), hidden, width)?,
                down: from.matrix(&name("ffn_down"), width, hidden)?,
                cache: Cache::new(shape.kv_heads, shape.head),
            });
        }
        go_on()?;
        let pairs = shape.head / 2;
        let slower = match from.vector_if("rope_freqs.weight", pairs)? {
            Some(tensor) => tensor.to_vec1::<f32>().map_err(engine)?,
            None => vec![1.0; pairs],
        };
        let turns = slower
            .iter()
            .enumerate()
            .map(|(i, slower)| shape.base.powf(-2.0 * i as f32 / shape.head as f32) / slower / shape.stretch)
            .collect();
        let tied = from.info("output.weight").is_err();
        Ok(Self {
            embedding: from.matrix("token_embd", shape.vocabulary, width)?,
            norm: from.vector("output_norm.weight", width)?,
            output: if tied { None } else { Some(from.matrix("output", shape.vocabulary, width)?) },
            layers,
            turns,
            read: Vec::new(),
            shape,
        })
    }

    /// Reads `prompt`, of which what the cache has already is passed over, and gives the scores of the next token.
    pub(super) fn read(&mut self, prompt: &[u32], go_on: &mut dyn FnMut() -> Result<()>) -> Result<Vec<f32>> {
        // The scores are those of the last token: that one is read in any case.
        let most = prompt.len().saturating_sub(1);
        let known = self.read.iter().zip(prompt).take(most).take_while(|(a, b)| a == b).count();
        self.read.truncate(known);
        self.more(prompt.get(known..).unwrap_or_default(), go_on)
    }

    /// Reads more tokens, and gives the scores of the next.
    pub(super) fn more(&mut self, tokens: &[u32], go_on: &mut dyn FnMut() -> Result<()>) -> Result<Vec<f32>> {
        let mut scores = None;
        for piece in tokens.chunks(STRIDE) {
            scores = Some(self.step(piece, go_on)?);
        }
        scores.ok_or_else(|| Error::new(ErrorKind::Invalid, super::OP, "there is nothing to read"))
    }

    /// Tokens that were read.
    pub(super) fn len(&self) -> usize {
        self.read.len()
    }

    /// Forgets all but the first `len` tokens.
    pub(super) fn back_to(&mut self, len: usize) {
        self.read.truncate(len);
    }

    fn step(&mut self, tokens: &[u32], go_on: &mut dyn FnMut() -> Result<()>) -> Result<Vec<f32>> {
        let at = self.read.len();
        let (cos, sin) = self.turn(at, tokens.len()).map_err(engine)?;
        let mut x = self.embedding.pick(tokens).map_err(engine)?;
        for layer in &mut self.layers {
            go_on()?;
            x = layer.forward(&self.shape, &x, at, (&cos, &sin)).map_err(engine)?;
        }
        self.read.extend(tokens);
        let scores = || {
            let last = x.narrow(0, tokens.len() - 1, 1)?.contiguous()?;
            let last = ops::rms_norm(&last, &self.norm, self.shape.epsilon)?;
            self.output.as_ref().unwrap_or(&self.embedding).forward(&last)?.squeeze(0)?.to_vec1()
        };
        scores().map_err(engine)
    }

    /// Cosines and sines of the positions from `at` on.
    fn turn(&self, at: usize, count: usize) -> candle_core::Result<(Tensor, Tensor)> {
        let angles = (at..at + count).flat_map(|n| self.turns.iter().map(move |turn| n as f32 * turn));
        let (sin, cos) = angles.map(f32::sin_cos).unzip::<f32, f32, Vec<_>, Vec<_>>();
        let shape = (count, self.turns.len());
        Ok((Tensor::from_vec(cos, shape, &Device::Cpu)?, Tensor::from_vec(sin, shape, &Device::Cpu)?))
    }
}

impl Layer {
    fn forward(
        &mut self,
        shape: &Shape,
        x: &Tensor,
        at: usize,
        turn: (&Tensor, &Tensor),
    ) -> candle_core::Result<Tensor> {
        let y = ops::rms_norm(x, &self.attention_norm, shape.epsilon)?;
        let x = (x + self.attend(shape, &y, at, turn)?)?;
        let y = ops::rms_norm(&x, &self.ffn_norm, shape.epsilon)?;
        let y = (ops::silu(&self.gate.forward(&y)?)? * self.up.forward(&y)?)?;
        x + self.down.forward(&y)?
    }

    fn attend(
        &mut self,
        shape: &Shape,
        x: &Tensor,
        at: usize,
        (cos, sin): (&Tensor, &Tensor),
    ) -> candle_core::Result<Tensor> {
        let count = x.dim(0)?;
        let heads = |y: Tensor, heads: usize| y.reshape((count, heads, shape.head));
        let norm = |y: Tensor, norm: &Option<Tensor>| match norm {
            Some(weight) => ops::rms_norm(&y, weight, shape.epsilon),
            None => Ok(y),
        };
        let turned = |y: Tensor| {
            let y = y.transpose(0, 1)?.contiguous()?.unsqueeze(0)?;
            let y =
                if shape.halves { rotary_emb::rope(&y, cos, sin) } else { rotary_emb::rope_i(&y, cos, sin) };
            y?.squeeze(0)
        };
        let q = turned(norm(heads(self.q.forward(x)?, shape.heads)?, &self.q_norm)?)?;
        let k = turned(norm(heads(self.k.forward(x)?, shape.kv_heads)?, &self.k_norm)?)?;
        let v = heads(self.v.forward(x)?, shape.kv_heads)?.transpose(0, 1)?.contiguous()?;
        let flat = |y: Tensor| y.flatten_all()?.to_vec1::<f32>();
        self.cache.put(at, &flat(k)?, &flat(v)?);
        let y = self.cache.attend(at, &flat(q)?, count);
        self.out.forward(&Tensor::from_vec(y, (count, shape.heads * shape.head), &Device::Cpu)?)
    }
}
