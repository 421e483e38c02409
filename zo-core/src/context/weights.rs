//! What a byte costs, per family of models: measured constants, and the table that they make.
//!
//! A text is one pass over its bytes. A byte of ASCII costs what its class costs behind the class before it; the first byte
//! of any other character costs what its script costs, the rest of it nothing. That is linear in the text, needs no
//! vocabulary, and tells words from code, JSON, digits and base64.
//!
//! Source of the numbers: `scripts/measure-tokens`, a fit to the tokenizers named below over texts in 45 languages
//! (the Universal Declaration of Human Rights), Markdown, source code, JSON, CSV, logs, digits, hex, base64 and emoji.

/// Thousandths of a token.
#[derive(Debug, Clone, Copy)]
struct Weights {
    /// Rows: the class before ([`HIGH`], then the columns' classes). Columns: space, line end or control, lower case, upper
    /// case, digit, one of `"{}[]:,`, other sign.
    pairs: [[u16; CLASSES]; CLASSES + 1],
    /// By script, in the order of [`script`].
    scripts: [u16; SCRIPTS],
}

/// `o200k_base`: GPT-4o and all later ones of OpenAI.
#[rustfmt::skip]
pub(super) static GPT: Table = Table::new(&Weights {
    pairs: [
        [840, 690, 624, 1025, 921, 1048, 3039],
        [42, 537, 0, 0, 1633, 749, 583],
        [224, 0, 795, 1352, 912, 433, 575],
        [0, 636, 268, 1061, 823, 374, 0],
        [0, 403, 0, 232, 2262, 299, 327],
        [127, 43, 1026, 1796, 279, 62, 1600],
        [284, 817, 362, 891, 0, 237, 0],
        [604, 493, 693, 830, 620, 129, 39],
    ],
    scripts: [
        698, 855, 1455, 239, 153, 212, 169, 700, 180, 264, 412, 235, 700, 281, 403, 316, 286, 482,
        410, 1831, 1508, 499, 1995, 599, 700, 171, 145, 989, 681, 906, 828, 461, 1369, 2180, 700,
    ],
});

/// `cl100k_base`: GPT-4, GPT-3.5.
#[rustfmt::skip]
pub(super) static GPT_4: Table = Table::new(&Weights {
    pairs: [
        [901, 2824, 347, 892, 904, 258, 0],
        [46, 529, 0, 0, 1768, 962, 664],
        [296, 0, 194, 560, 1136, 402, 661],
        [0, 28, 304, 766, 688, 226, 0],
        [0, 206, 314, 218, 2658, 227, 416],
        [0, 412, 1137, 1727, 276, 308, 1417],
        [352, 337, 353, 757, 0, 214, 0],
        [59, 0, 651, 652, 613, 0, 105],
    ],
    scripts: [
        696, 2084, 1475, 907, 431, 1288, 723, 700, 1029, 1281, 1783, 1856, 700, 1477, 1938, 1920, 1767, 2036,
        955, 2142, 2052, 2011, 2899, 1615, 700, 2021, 0, 861, 733, 1050, 1235, 1064, 1319, 1851, 700,
    ],
});

/// `@anthropic-ai/tokenizer` 0.0.4, which is Claude 2's: the later ones are not published.
#[rustfmt::skip]
pub(super) static CLAUDE: Table = Table::new(&Weights {
    pairs: [
        [624, 2770, 184, 809, 907, 222, 0],
        [8, 527, 0, 0, 715, 1136, 565],
        [131, 0, 941, 500, 1312, 539, 888],
        [0, 0, 327, 550, 727, 151, 45],
        [0, 302, 501, 225, 2318, 277, 618],
        [0, 674, 945, 1763, 384, 837, 1114],
        [264, 366, 455, 835, 0, 147, 0],
        [0, 0, 1116, 975, 502, 0, 286],
    ],
    scripts: [
        699, 2751, 899, 1241, 549, 1208, 1071, 700, 1244, 1963, 3112, 3062, 700, 2051, 2320, 2293, 2380, 1781,
        1786, 3042, 2948, 939, 2901, 2967, 700, 1305, 0, 880, 741, 962, 1170, 1324, 1316, 1710, 700,
    ],
});

/// The vocabulary that Gemini shares with Gemma.
#[rustfmt::skip]
pub(super) static GEMINI: Table = Table::new(&Weights {
    pairs: [
        [280, 1234, 190, 1014, 898, 733, 0],
        [52, 538, 59, 0, 1911, 1194, 786],
        [510, 297, 769, 934, 1562, 545, 1077],
        [0, 569, 256, 1069, 986, 492, 613],
        [0, 565, 0, 300, 1823, 296, 516],
        [162, 311, 1047, 1621, 957, 664, 2051],
        [50, 845, 416, 876, 416, 196, 0],
        [269, 487, 518, 799, 523, 161, 171],
    ],
    scripts: [
        698, 1175, 1134, 394, 262, 511, 350, 700, 397, 599, 732, 698, 700, 479, 641, 731, 598, 946,
        388, 1026, 671, 836, 1002, 1000, 700, 739, 318, 697, 695, 446, 695, 797, 985, 1034, 700,
    ],
});

/// Llama 3.
#[rustfmt::skip]
pub(super) static LLAMA: Table = Table::new(&Weights {
    pairs: [
        [1060, 2395, 1595, 1035, 891, 1072, 0],
        [47, 520, 0, 0, 1759, 1105, 590],
        [243, 0, 381, 687, 1559, 426, 571],
        [0, 0, 314, 853, 701, 129, 0],
        [0, 229, 184, 202, 2697, 157, 761],
        [0, 394, 1108, 1789, 274, 97, 1678],
        [553, 130, 371, 786, 0, 250, 0],
        [201, 0, 510, 504, 471, 0, 48],
    ],
    scripts: [
        697, 212, 1001, 246, 180, 1214, 223, 700, 434, 1244, 1718, 1821, 700, 1453, 1899, 1896, 1733, 1991,
        424, 1989, 2053, 2002, 2906, 1612, 700, 1990, 0, 900, 771, 605, 777, 447, 975, 1865, 700,
    ],
});

/// Qwen 2.5.
#[rustfmt::skip]
pub(super) static QWEN: Table = Table::new(&Weights {
    pairs: [
        [306, 4270, 0, 1224, 861, 945, 0],
        [50, 516, 0, 0, 1224, 1131, 542],
        [172, 0, 0, 150, 2038, 396, 590],
        [0, 344, 330, 909, 760, 213, 0],
        [0, 200, 33, 168, 2707, 198, 565],
        [800, 0, 1298, 2040, 943, 0, 2332],
        [680, 0, 214, 784, 0, 254, 0],
        [0, 0, 406, 568, 489, 0, 131],
    ],
    scripts: [
        697, 1532, 0, 952, 355, 501, 499, 700, 1050, 1141, 1803, 1710, 700, 1186, 1643, 1541, 1436, 1649,
        545, 1302, 1342, 1577, 1066, 1205, 700, 1086, 1127, 396, 828, 670, 507, 687, 1361, 0, 700,
    ],
});

/// Mistral Nemo (Tekken).
#[rustfmt::skip]
pub(super) static MISTRAL: Table = Table::new(&Weights {
    pairs: [
        [964, 1522, 498, 1013, 902, 829, 2499],
        [37, 515, 0, 0, 1472, 987, 690],
        [243, 1053, 1402, 1012, 1067, 432, 246],
        [0, 142, 286, 1183, 828, 477, 0],
        [0, 369, 0, 484, 2126, 442, 134],
        [615, 0, 1285, 1825, 946, 414, 1831],
        [129, 615, 0, 871, 265, 357, 58],
        [437, 600, 560, 532, 947, 0, 0],
    ],
    scripts: [
        698, 902, 2444, 252, 162, 255, 136, 700, 231, 314, 489, 531, 700, 338, 456, 384, 461, 2979,
        493, 2933, 2316, 514, 2921, 2915, 700, 348, 50, 1153, 782, 634, 896, 336, 1223, 2769, 700,
    ],
});

/// DeepSeek V3.
#[rustfmt::skip]
pub(super) static DEEPSEEK: Table = Table::new(&Weights {
    pairs: [
        [1087, 1916, 1467, 937, 889, 295, 2],
        [39, 529, 0, 0, 1693, 1000, 877],
        [495, 1260, 940, 669, 1278, 519, 493],
        [0, 0, 298, 1090, 865, 441, 12],
        [0, 469, 131, 325, 1906, 538, 496],
        [29, 78, 959, 1661, 291, 299, 2002],
        [85, 170, 332, 1042, 141, 199, 265],
        [98, 0, 589, 748, 433, 110, 48],
    ],
    scripts: [
        697, 693, 1318, 353, 204, 406, 218, 700, 464, 312, 843, 799, 700, 506, 753, 701, 802, 941,
        325, 1806, 1113, 863, 2256, 1189, 700, 693, 14, 845, 786, 680, 539, 543, 1533, 1519, 700,
    ],
});

/// Classes of ASCII.
const CLASSES: usize = 7;
/// The class of every byte that is not ASCII.
const HIGH: u8 = 0;
const SCRIPTS: usize = 35;
/// What comes before a text.
const START: u8 = class(b'\n');

/// The class of a byte, as the class before the next one: 0 for [`HIGH`], else one more than its column.
const fn class(b: u8) -> u8 {
    match b {
        0x80.. => HIGH,
        b' ' => 1,
        0..=0x1f | 0x7f => 2,
        b'a'..=b'z' => 3,
        b'A'..=b'Z' => 4,
        b'0'..=b'9' => 5,
        b'"' | b'{' | b'}' | b'[' | b']' | b':' | b',' => 6,
        _ => 7,
    }
}

/// The script of a character, from its first two bytes in UTF-8.
// Arms are tried in order, so a range that begins at 0 stands for what is left of it.
#[allow(clippy::match_overlapping_arm)]
const fn script(a: u8, b: u8) -> u8 {
    match a {
        ..=0xc2 => 0,
        ..=0xc9 => 1,
        ..=0xcc => 2,
        ..=0xcf => 3,
        ..=0xd3 => 4,
        ..=0xd7 => 5,
        ..=0xdb => 6,
        ..=0xdf => 7,
        0xe0 => match b {
            ..0xa4 => 34,
            // Twelve scripts of India and its neighbours, 128 characters each.
            ..0xbc => 8 + (b - 0xa4) / 2,
            _ => 20,
        },
        0xe1 => match b {
            ..=0x81 => 21,
            0x88..=0x8d => 22,
            0x9e | 0x9f => 23,
            0xb8..=0xbb => 24,
            _ => 25,
        },
        0xe2 => 26 + (b != 0x80) as u8,
        0xe3 => match b {
            0x80 => 28,
            ..=0x83 => 29,
            _ => 30,
        },
        ..=0xe9 => 30,
        ..=0xed => 31,
        ..=0xef => 32,
        0xf0 if b == 0x9f => 33,
        _ => 34,
    }
}

/// How many rows the table has: one per class, one per lead byte whose script the next byte tells, and unused ones.
const ROWS: usize = 16;

/// The row that a byte puts the next one into.
// Evaluated by the compiler, where an index that is out of bounds is an error.
#[allow(clippy::indexing_slicing)]
const ROW_AFTER: [u8; 256] = {
    let mut rows = [0; 256];
    let mut b = 0;
    while b < 256 {
        rows[b] = match b as u8 {
            0xe0 => 8,
            0xe1 => 9,
            0xe2 => 10,
            0xe3 => 11,
            0xf0 => 12,
            other => class(other),
        };
        b += 1;
    }
    rows
};

/// Weights by the row of the byte before, and the byte.
#[derive(Debug)]
pub(super) struct Table([u16; ROWS * 256]);

impl Table {
    // Evaluated by the compiler, where an index that is out of bounds is an error.
    #[allow(clippy::indexing_slicing)]
    const fn new(weights: &Weights) -> Self {
        let mut cells = [0; ROWS * 256];
        let mut at = 0;
        while at < cells.len() {
            let (row, byte) = (at / 256, (at % 256) as u8);
            let lead = match row {
                8 => 0xe0,
                9 => 0xe1,
                10 => 0xe2,
                11 => 0xe3,
                12 => 0xf0,
                _ => 0,
            };
            cells[at] = match byte {
                // Behind one of the lead bytes comes the second of a character, which tells the script.
                0x80..=0xbf if lead != 0 => weights.scripts[script(lead, byte) as usize],
                0x80..=0xc1 | 0xe0..=0xe3 | 0xf0 => 0,
                0xc2.. => weights.scripts[script(byte, 0) as usize],
                _ => {
                    // No valid text has ASCII behind a lead byte.
                    let before = if row > CLASSES { HIGH as usize } else { row };
                    weights.pairs[before][class(byte) as usize - 1]
                }
            };
            at += 1;
        }
        Self(cells)
    }
}

/// One pass over a text that may come in pieces.
#[derive(Debug)]
pub(super) struct Pass<'t> {
    table: &'t Table,
    row: u8,
    /// Thousandths of a token so far.
    sum: u64,
}

impl<'t> Pass<'t> {
    pub(super) fn new(table: &'t Table) -> Self {
        Self { table, row: START, sum: 0 }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let cells = &self.table.0;
        let weight = |row: u8, b: u8| {
            // The mask only tells the compiler what is so anyway.
            let at = (usize::from(row) << 8 | usize::from(b)) & (ROWS * 256 - 1);
            u64::from(cells.get(at).copied().unwrap_or(0))
        };
        let Some((first, rest)) = bytes.split_first() else { return };
        let mut sum = weight(self.row, *first);
        for (before, b) in bytes.iter().zip(rest) {
            let row = ROW_AFTER.get(usize::from(*before)).copied().unwrap_or(0);
            sum += weight(row, *b);
        }
        let last = rest.last().unwrap_or(first);
        self.row = ROW_AFTER.get(usize::from(*last)).copied().unwrap_or(0);
        self.sum = self.sum.saturating_add(sum);
    }

    /// Thousandths of a token.
    pub(super) fn sum(&self) -> u64 {
        self.sum
    }
}

impl std::io::Write for Pass<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(text: &str) -> u64 {
        let mut pass = Pass::new(&GPT);
        pass.feed(text.as_bytes());
        pass.sum()
    }

    #[test]
    fn pieces_cost_what_the_whole_costs() {
        let text = "fn main() { println!(\"Grüße, 東京 🎉 {}\", 3.14); }\n\tहिन्दी Ελλάδα";
        for cut in 0..text.len() {
            let (a, b) = text.as_bytes().split_at(cut);
            let mut pass = Pass::new(&GPT);
            pass.feed(a);
            pass.feed(b);
            assert_eq!(pass.sum(), sum(text), "cut at {cut}");
        }
    }

    #[test]
    fn every_character_finds_its_script() {
        // Of each script one letter, and where the table has its weight.
        for (c, at) in [
            ('é', 1),
            ('Ω', 3),
            ('ж', 4),
            ('א', 5),
            ('ع', 6),
            ('अ', 8),
            ('த', 13),
            ('ท', 18),
            ('ཀ', 20),
            ('က', 21),
            ('አ', 22),
            ('ក', 23),
            ('ế', 24),
            ('ა', 25),
            ('’', 26),
            ('→', 27),
            ('。', 28),
            ('か', 29),
            ('漢', 30),
            ('한', 31),
            ('！', 32),
            ('🎉', 33),
            ('𠀀', 34),
        ] {
            let mut buffer = [0; 4];
            let bytes = c.encode_utf8(&mut buffer).as_bytes();
            assert_eq!(usize::from(script(bytes[0], bytes[1])), at, "{c}");
        }
        let one = sum("漢");
        assert!(one > 0 && sum(&"漢".repeat(1000)) == 1000 * one);
        assert!(sum("🎉") > one, "an emoji is several tokens");
    }
}
