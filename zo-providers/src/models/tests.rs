use super::*;
use proptest::prelude::*;
use zo_traits::Price;

const TABLE: &str = include_str!("table.tsv");

/// Figures read off public pages, not off the packages that the table is made of. What a page does not tell is not compared.
#[test]
fn well_known_models_are_as_public_pages_say() {
    // Provider, model, longest prompt, longest answer, USD per million tokens: in, out, cache read, cache write.
    type Case = (&'static str, &'static str, Option<u32>, Option<u32>, [Option<f64>; 4]);
    const fn usd(input: f64, output: f64) -> [Option<f64>; 4] {
        [Some(input), Some(output), None, None]
    }
    const fn cached(input: f64, output: f64, read: f64) -> [Option<f64>; 4] {
        [Some(input), Some(output), Some(read), None]
    }
    const fn all(input: f64, output: f64, read: f64, write: f64) -> [Option<f64>; 4] {
        [Some(input), Some(output), Some(read), Some(write)]
    }
    const CASES: &[Case] = &[
        // https://platform.claude.com/docs/en/about-claude/pricing
        ("anthropic", "claude-sonnet-4-6", None, None, all(3.0, 15.0, 0.3, 3.75)),
        ("anthropic", "claude-haiku-4-5", None, None, all(1.0, 5.0, 0.1, 1.25)),
        ("anthropic", "claude-opus-4-8", None, None, all(5.0, 25.0, 0.5, 6.25)),
        // The same, and https://platform.claude.com/docs/en/models/opus-4-6/overview.md
        ("anthropic", "claude-opus-4-6", Some(1_000_000), Some(128_000), all(5.0, 25.0, 0.5, 6.25)),
        ("anthropic", "claude-fable-5-1", Some(1_000_000), Some(128_000), all(10.0, 50.0, 0.25, 12.5)),
        // https://developers.openai.com/api/docs/models/compare: a window of 1,050,000 less an answer of 128,000
        ("openai", "gpt-6-astra", Some(922_000), Some(128_000), all(10.0, 50.0, 1.0, 12.5)),
        // https://developers.openai.com/api/docs/models/gpt-5-codex: a window of 400,000 less an answer of 128,000. Shut down
        // at OpenAI, on sale at Azure.
        ("azure", "gpt-5-codex", Some(272_000), Some(128_000), cached(1.25, 10.0, 0.125)),
        // https://ai.google.dev/gemini-api/docs/pricing as transcribed on 2026-09-20; 3.8 Flash doubles on 2027-01-01
        ("gemini", "gemini-3.8-flash", None, None, usd(0.75, 3.75)),
        ("gemini", "gemini-3.1-pro-preview", None, None, usd(2.0, 12.0)),
        ("gemini", "gemini-3.5-flash", None, None, usd(1.5, 9.0)),
        ("gemini", "gemini-2.5-pro", None, None, [Some(1.25), None, None, None]),
        ("gemini", "gemini-embedding-2", None, None, [Some(0.2), None, None, None]),
        // https://docs.oracle.com/en-us/iaas/Content/generative-ai/google-gemini-2-5-flash.htm
        ("gemini", "gemini-2.5-flash", Some(1_048_576), Some(65_536), [None; 4]),
        // https://api-docs.deepseek.com/quick_start/pricing: peak hours; a longest answer of 384K
        ("deepseek", "deepseek-flash", Some(1_000_000), Some(393_216), cached(0.3, 1.2, 0.006)),
        ("deepseek", "deepseek-v4-pro", Some(1_000_000), Some(393_216), cached(1.32, 3.96, 0.044)),
        // https://console.groq.com/docs/models
        ("groq", "openai/gpt-oss-120b", Some(131_072), Some(65_536), usd(0.15, 0.6)),
        ("groq", "openai/gpt-oss-20b", Some(131_072), Some(65_536), usd(0.075, 0.3)),
        // https://docs.x.ai/developers/grok-4-7, https://docs.x.ai/developers/grok-4-6
        ("xai", "grok-4.7", Some(500_000), None, usd(2.0, 6.0)),
        ("xai", "grok-4.6", Some(500_000), None, usd(2.0, 6.0)),
        // https://zilliz.com/ai-models/text-embedding-3-large
        ("openai", "text-embedding-3-large", Some(8191), None, [Some(0.13), None, None, None]),
        // https://vercel.com/ai-gateway/models/voyage-4-large.md
        ("voyage", "voyage-4-large", Some(32_000), None, [Some(0.12), None, None, None]),
    ];
    for (provider, model, context, output, prices) in CASES {
        let c = known(provider, model).unwrap_or_else(|| panic!("{provider} {model}")).capabilities;
        let p = c.price.unwrap();
        assert!(context.is_none() || c.context_window == *context, "{model}: {:?}", c.context_window);
        assert!(output.is_none() || c.max_output == *output, "{model}: {:?}", c.max_output);
        for (said, ours) in prices.iter().zip([p.input, p.output, p.cache_read, p.cache_write]) {
            assert!(said.is_none_or(|usd| (usd * 1e6).round() as u64 == ours), "{model}: {p:?}");
        }
    }
    // DeepSeek's page: both call tools, Flash sees pictures, V4 Pro does not.
    let (flash, pro) =
        (known("deepseek", "deepseek-flash").unwrap(), known("deepseek", "deepseek-v4-pro").unwrap());
    assert!(flash.capabilities.tools && pro.capabilities.tools);
    assert!(flash.capabilities.vision && !pro.capabilities.vision);
    // https://zilliz.com/ai-models/text-embedding-3-large
    assert_eq!(known("openai", "text-embedding-3-small").unwrap().dimensions, Some(1536));
    assert_eq!(known("openai", "text-embedding-3-large").unwrap().dimensions, Some(3072));
}

#[test]
fn every_row_is_sound() {
    let lines: Vec<&str> = TABLE.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(lines.len(), all().count(), "every row parses and has a source");
    assert!(lines.len() > 300 && TABLE.len() < 80_000);
    let key = |l: &&str| l.split('\t').take(2).map(str::to_owned).collect::<Vec<_>>();
    let keys: Vec<_> = lines.iter().map(key).collect();
    assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "sorted, each id once");
    for (provider, model, known) in all() {
        let c = &known.capabilities;
        assert!(c.context_window.is_some() || c.price.is_some(), "{provider} {model} says nothing");
        assert_ne!(c.context_window, Some(0), "{model}");
        assert!(c.parallel_tools <= c.tools, "{model}");
        assert!(known.source.contains("litellm ") || known.source.contains("genai-prices "), "{model}");
        assert!(known.as_of.len() == 10 && known.as_of > "2026-01-01", "{model}");
        assert_eq!(super::known(provider, model).as_ref(), Some(&known), "{model} is found by its id");
        table::check(provider, model).unwrap();
    }
}

#[test]
fn prices_are_plausible() {
    const THOUSAND_USD: u64 = 1_000_000_000;
    for (provider, model, known) in all() {
        let Some(p) = known.capabilities.price else { continue };
        assert!(p.input > 0, "{provider} {model}: nobody says that it is free");
        assert!(p.input < THOUSAND_USD && p.output < THOUSAND_USD, "{provider} {model}");
        let embeds = known.dimensions.is_some() || model.contains("embed") || provider == "voyage";
        if embeds {
            assert!(p.output == 0 && p.input <= 2_000_000, "{provider} {model}");
        } else {
            assert!(p.output * 100 >= p.input, "{provider} {model}");
        }
        // Else cached tokens would be dearer than others, or written ones free.
        assert!(p.cache_read <= p.input && p.cache_write >= p.input, "{provider} {model}");
    }
}

#[test]
fn every_embedding_model_tells_its_length() {
    for (provider, model, known) in all().filter(|(_, model, _)| model.contains("embed")) {
        assert!(known.dimensions.is_some_and(|n| (256..=8192).contains(&n)), "{provider} {model}");
        assert!(!known.capabilities.tools, "{provider} {model}");
    }
}

#[test]
fn stamps_come_off() {
    for (provider, asked, row) in [
        ("anthropic", "claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("anthropic", "claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("anthropic", "claude-haiku-4-5@default", "claude-haiku-4-5"),
        ("anthropic", "claude-haiku-4-5-latest", "claude-haiku-4-5"),
        ("anthropic", "claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5"),
        ("anthropic", "anthropic/claude-haiku-4-5", "claude-haiku-4-5"),
        ("openai", "gpt-5-2025-08-07", "gpt-5"),
        ("openai", "gpt-5-nano-2025-08-07", "gpt-5-nano"),
        ("openai", "openai/gpt-5-mini", "gpt-5-mini"),
        ("gemini", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("gemini", "gemini-2.5-flash-001", "gemini-2.5-flash"),
        ("gemini", "models/gemini-2.5-pro-latest", "gemini-2.5-pro"),
        ("groq", "groq/openai/gpt-oss-20b", "openai/gpt-oss-20b"),
        ("openrouter", "openai/gpt-5-2025-08-07", "openai/gpt-5"),
        ("openrouter", "openrouter/anthropic/claude-haiku-4.5", "anthropic/claude-haiku-4.5"),
    ] {
        assert!(known(provider, row).is_some(), "{row}");
        assert_eq!(known(provider, asked), known(provider, row), "{provider} {asked}");
    }
}

#[test]
fn an_exact_row_goes_before_a_shorter_one() {
    let (dated, plain) = (known("openai", "gpt-4o-2024-05-13").unwrap(), known("openai", "gpt-4o").unwrap());
    assert_eq!(dated.capabilities.price.unwrap().input, 5_000_000);
    assert_eq!(plain.capabilities.price.unwrap().input, 2_500_000);
}

#[test]
fn azure_sells_what_openai_makes() {
    assert_eq!(known("azure", "gpt-5"), known("openai", "gpt-5"));
    assert_eq!(known("azure", "gpt-5-2025-08-07"), known("openai", "gpt-5"));
    // Its own price where it has one.
    assert_eq!(known("azure", "text-embedding-3-large").unwrap().capabilities.price.unwrap().input, 143_000);
    assert!(known("azure", "my-deployment").is_none());
}

#[test]
fn variants_share_abilities_and_nothing_else() {
    let plain = known("openrouter", "openai/gpt-oss-120b").unwrap().capabilities;
    for variant in ["openai/gpt-oss-120b:free", "openai/gpt-oss-120b:nitro", "openai/gpt-oss-120b:batch"] {
        let c = known("openrouter", variant).unwrap().capabilities;
        assert!(c.tools && c.tools == plain.tools && c.reasoning == plain.reasoning, "{variant}");
        assert_eq!((c.price, c.context_window, c.max_output), (None, None, None), "{variant}");
    }
    assert!(known("openrouter", "openai/gpt-oss-120b:mine").is_none());
    assert!(known("groq", "openai/gpt-oss-120b:free").is_none(), "a custom of OpenRouter's");
}

#[test]
fn look_alikes_stay_unknown() {
    for (provider, model) in [
        ("openai", "gpt-5-nano-x"),
        ("openai", "gpt-5-turbo"),
        ("openai", "gpt-5-chat-latest"),
        ("openai", "gpt-5-2025-13-07"),
        ("openai", "gpt-5-2025-08-41"),
        ("openai", "gpt-5-1999-08-07"),
        ("openai", "gpt-5-20250807a"),
        ("openai", "gpt-5-000"),
        ("openai", "gpt-5-0613"),
        ("openai", "gpt-5-2512"),
        ("openai", "gpt-5-5"),
        ("openai", "gpt-5-"),
        ("openai", "gpt-5 "),
        ("openai", "gpt-52025-08-07"),
        ("openai", "GPT-5"),
        ("openai", "gpt"),
        ("openai", "xgpt-5"),
        ("openai", "ft:gpt-5:org::id"),
        ("openai", "anthropic/gpt-5"),
        ("openai", "claude-haiku-4-5"),
        ("openai", ""),
        ("openai", "-latest"),
        ("openai", "openai/"),
        ("openai", "gpt-4o-realtime-preview"),
        ("openai", "gpt-4o-audio-preview-2024-12-17"),
        ("anthropic", "claude-haiku-4-5-fast"),
        ("anthropic", "claude-haiku-4"),
        ("anthropic", "claude-sonnet-4-20250514"),
        ("gemini", "gemini-2.5-flash-preview-09-2025"),
        ("gemini", "gemini-2.5-flash-image"),
        ("mistral", "mistral-large-2402"),
        ("mistral", "mistral-small-2402"),
        ("vllm", "gpt-5"),
        ("ollama", "gpt-oss:20b"),
        ("", "gpt-5"),
        ("openai-compatible", "gpt-5"),
    ] {
        assert_eq!(known(provider, model), None, "{provider} {model}");
    }
}

#[test]
fn a_host_adds_and_overrides() {
    let mut mine = Capabilities::default();
    (mine.tools, mine.context_window) = (true, Some(8192));
    let models = Models::builtin()
        .with("openai", "gpt-5", mine.clone())
        .unwrap()
        .with("vllm", "own", mine.clone())
        .unwrap();
    let own = models.known("vllm", "own").unwrap();
    assert_eq!((own.capabilities, own.source, own.as_of), (mine.clone(), "the host", ""));
    assert_eq!(models.known("openai", "gpt-5").unwrap().capabilities, mine);
    assert_eq!(models.known("openai", "gpt-5-2025-08-07").unwrap().capabilities, mine, "the same rules");
    assert_eq!(models.known("openai", "gpt-5-mini"), known("openai", "gpt-5-mini"));
    assert_ne!(known("openai", "gpt-5").unwrap().capabilities, mine, "nobody else is told");
    // The later word counts.
    let again = models.with("vllm", "own", Capabilities::default()).unwrap();
    assert_eq!(again.known("vllm", "own").unwrap().capabilities, Capabilities::default());
    for (provider, model) in
        [("", "m"), ("p", ""), ("p\t", "m"), ("p", "a\nb"), ("#p", "m"), ("p", " m"), ("-", "m")]
    {
        let e = Models::builtin().with(provider, model, Capabilities::default()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid, "{provider:?} {model:?}");
    }
}

#[test]
fn a_table_is_read() {
    let text = "# mine\n\n\
        vllm\tbig\t131072\t8192\t\t0.15\t0.6\t0.075\t\ttpsvadrc\r\n\
        vllm\tvectors\t512\t-\t384\t0.01\t0\n\
        vllm\tplain\n";
    let models = Models::read(text).unwrap();
    let big = models.known("vllm", "big").unwrap().capabilities;
    let p = Price { input: 150_000, output: 600_000, cache_read: 75_000, cache_write: 150_000 };
    assert_eq!((big.context_window, big.max_output, big.price), (Some(131_072), Some(8192), Some(p)));
    assert!(big.tools && big.parallel_tools && big.structured && big.vision);
    assert!(big.audio && big.documents && big.reasoning && big.cache);
    assert_eq!(models.known("vllm", "vectors").unwrap().dimensions, Some(384));
    assert_eq!(models.known("vllm", "plain").unwrap().capabilities, Capabilities::default());
    assert_eq!(Models::read(TABLE).unwrap().own.len(), all().count(), "the built-in table is one");
}

#[test]
fn errors_name_the_line() {
    for (text, says) in [
        ("\nvllm\n", "line 2: a line begins with a provider, a tab and a model"),
        ("vllm x 5\n", "line 1: a line begins with a provider, a tab and a model"),
        ("vllm\tx\t1M", "line 1: context \"1M\" is not a number"),
        ("vllm\tx\t\t-5", "line 1: output \"-5\" is not a number"),
        ("vllm\tx\t\t\t99999999999", "line 1: dimensions \"99999999999\" is not a number"),
        ("vllm\tx\t\t\t\t1", "line 1: a price needs both that of the prompt and that of the completion"),
        ("vllm\tx\t\t\t\t\t\t1", "line 1: a price needs both that of the prompt and that of the completion"),
        (
            "vllm\tx\t\t\t\t$1\t2",
            "line 1: price \"$1\" is not USD per million tokens with at most six decimal places",
        ),
        (
            "vllm\tx\t\t\t\t1e3\t2",
            "line 1: price \"1e3\" is not USD per million tokens with at most six decimal places",
        ),
        (
            "vllm\tx\t\t\t\t0.1234567\t2",
            "line 1: price \"0.1234567\" is not USD per million tokens with at most six decimal places",
        ),
        (
            "vllm\tx\t\t\t\t1.\t2",
            "line 1: price \"1.\" is not USD per million tokens with at most six decimal places",
        ),
        (
            "vllm\tx\t\t\t\t1\t99999999999999999999",
            "line 1: price \"99999999999999999999\" is above 1000000 USD per million tokens",
        ),
        ("vllm\tx\t\t\t\t\t\t\t\ttq", "line 1: ability 'q' is none of t, p, s, v, a, d, r, c"),
        ("vllm\tx\t\t\t\t\t\t\t\tt\ta\tb", "line 1: more than eleven columns"),
        ("vllm\tx\n#\nvllm\ty\nvllm\tx", "line 4: vllm x stands already in line 1"),
    ] {
        let e = Models::read(text).unwrap_err();
        assert_eq!(
            (e.kind(), e.to_string()),
            (ErrorKind::Invalid, format!("models.read: {says}")),
            "{text:?}"
        );
    }
}

/// Ids with the borders and stamps that the lookup looks for.
fn ids() -> impl Strategy<Value = String> {
    let words = [
        "gpt-5",
        "claude",
        "-",
        ".",
        ":",
        "@",
        "/",
        "latest",
        "2025-08-07",
        "20250807",
        "001",
        "v1:0",
        ":free",
        "é",
        "models/",
        "openai/",
        "0",
        "",
    ];
    proptest::collection::vec(proptest::sample::select(words.to_vec()), 0..8).prop_map(|w| w.concat())
}

fn rows() -> impl Strategy<Value = (String, String, Capabilities)> {
    let number = || proptest::option::of(any::<u32>());
    let usd = || 0..1_000_000_000_000u64;
    let price = proptest::option::of((usd(), usd(), usd(), usd()));
    ("[a-z]{1,4}", "[a-z0-9/:.@-]{1,12}x", number(), number(), price, any::<[bool; 8]>()).prop_map(
        |(provider, model, context, output, price, can)| {
            let mut c = Capabilities::default();
            (c.context_window, c.max_output) = (context, output);
            c.price = price.map(|(input, output, cache_read, cache_write)| Price {
                input,
                output,
                cache_read,
                cache_write,
            });
            [c.tools, c.parallel_tools, c.structured, c.vision, c.audio, c.documents, c.reasoning, c.cache] =
                can;
            (provider, model, c)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lookup_never_panics(provider in ".*", model in ".*", id in ids()) {
        known(&provider, &model);
        for provider in ["openai", "azure", "openrouter", &provider] {
            known(provider, &id);
        }
    }

    #[test]
    fn what_is_found_is_a_beginning_of_what_was_asked(id in ids()) {
        // Whatever is taken off, it is taken off the ends.
        for spelling in name::spellings("openai", &id) {
            prop_assert!(id.contains(spelling.id) && !spelling.id.is_empty() || id.is_empty());
        }
    }

    #[test]
    fn reading_never_panics(text in "(.{0,9}[\t\n]){0,30}") {
        let _ = Models::read(&text);
    }

    #[test]
    fn what_is_written_reads_the_same(rows in proptest::collection::vec(rows(), 0..20)) {
        let models = rows.into_iter().try_fold(Models::builtin(), |m, (p, id, c)| m.with(&p, &id, c)).unwrap();
        prop_assert_eq!(Models::read(&models.to_string()).unwrap(), models);
    }
}
