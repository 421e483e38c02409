//! Behaviour of the offline provider: what it calls, what it says, and that nothing makes it panic or break a schema.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::{Value, json};
use std::time::Instant;
use zo_providers::Offline;
use zo_traits::{
    Cx, FinishReason, Message, Part, Provider, ProviderExt, Request, Response, Role, StreamEvent, ToolCall,
    ToolChoice, ToolResult, ToolSpec, ToolStatus,
};

fn ask(request: &Request) -> Response {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Offline::new().complete(&Cx::default(), request)).unwrap()
}

fn say(text: &str, tools: &[ToolSpec]) -> Response {
    ask(&Request::new("", [Message::user(text)]).tools(tools.iter().cloned()))
}

/// Name and arguments of each call.
fn calls(answer: &Response) -> Vec<(String, Value)> {
    answer.message.tool_calls().map(|c| (c.name.clone(), c.args.clone())).collect()
}

/// A schema as `schemars` writes it for a struct.
fn schema(properties: Value, required: &[&str]) -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Args",
        "type": "object",
        "properties": properties,
        "required": required,
    })
}

fn calculator() -> ToolSpec {
    let input = schema(
        json!({"expression": {"type": "string", "description": "What to evaluate, e.g. 2 + 2"}}),
        &["expression"],
    );
    ToolSpec::new("calculator", "Evaluates an arithmetic expression.", input)
}

fn weather() -> ToolSpec {
    let input = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Name of the city"},
            "unit": {"anyOf": [{"$ref": "#/$defs/Unit"}, {"type": "null"}], "description": "Unit of the temperature"},
            "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 14, "description": "Number of days to forecast"},
        },
        "required": ["city"],
        "$defs": {"Unit": {"oneOf": [
            {"type": "string", "const": "celsius", "description": "Degrees Celsius"},
            {"type": "string", "const": "fahrenheit", "description": "Degrees Fahrenheit"},
        ]}},
    });
    ToolSpec::new("get_weather", "Gets the current weather and forecast for a city.", input)
}

fn remember() -> ToolSpec {
    let input =
        schema(json!({"text": {"type": "string", "description": "The fact, in one sentence."}}), &["text"]);
    ToolSpec::new("remember", "Stores a fact about the user for later conversations.", input)
}

fn note() -> ToolSpec {
    let input = schema(json!({"text": {"type": "string", "description": "Text of the note"}}), &["text"]);
    ToolSpec::new("add_note", "Writes down a note.\nTriggers: note, jot down", input)
}

fn search() -> ToolSpec {
    let input = schema(json!({"query": {"type": "string", "description": "What to search for"}}), &["query"]);
    ToolSpec::new("web_search", "Searches the web for pages about a topic.", input)
}

fn mail() -> ToolSpec {
    let input = schema(
        json!({
            "to": {"type": "string", "format": "email", "description": "Address of the recipient"},
            "subject": {"type": "string", "description": "Subject line"},
            "body": {"type": "string", "description": "Body of the mail"},
        }),
        &["to", "body"],
    );
    ToolSpec::new("send_email", "Sends an email to somebody.", input)
}

fn reminder() -> ToolSpec {
    let input = schema(
        json!({
            "text": {"type": "string", "description": "What to be reminded of"},
            "date": {"type": "string", "format": "date", "description": "Day of the reminder"},
        }),
        &["text", "date"],
    );
    ToolSpec::new("set_reminder", "Sets a reminder for a day.", input)
}

fn skills() -> ToolSpec {
    let input = schema(
        json!({"skill": {"type": "string", "enum": ["pdf-tools", "haiku", "spreadsheets"]}}),
        &["skill"],
    );
    let about = "Activates a skill and returns its instructions.\n\
        - pdf-tools: Merge, split and extract text from PDF files\n\
        - haiku: Write a short Japanese poem\n\
        - spreadsheets: Read and edit Excel workbooks and CSV tables";
    ToolSpec::new("use_skill", about, input)
}

fn everything() -> Vec<ToolSpec> {
    vec![calculator(), weather(), remember(), note(), search(), mail(), reminder(), skills()]
}

#[test]
fn arithmetic_goes_to_the_calculator() {
    for (text, want) in [
        ("What is 17 times 23?", "17 * 23"),
        ("17*23", "17*23"),
        ("what's 12 plus 30", "12 + 30"),
        ("please compute (3+4)/2", "(3+4)/2"),
        ("square root of 2", "sqrt(2)"),
        ("How much is 15% of 80?", "15 / 100 * 80"),
    ] {
        assert_eq!(
            calls(&say(text, &everything())),
            [("calculator".into(), json!({"expression": want}))],
            "{text}"
        );
    }
    let input = schema(json!({"a": {"type": "number"}, "b": {"type": "number"}}), &["a", "b"]);
    let multiply = ToolSpec::new("multiply", "Multiplies two numbers.", input.clone());
    let add = ToolSpec::new("add", "Adds two numbers.", input);
    assert_eq!(
        calls(&say("What is 17 times 23?", &[add.clone(), multiply.clone()])),
        [("multiply".into(), json!({"a": 17, "b": 23}))]
    );
    assert_eq!(
        calls(&say("What is 12 plus 30?", &[add, multiply])),
        [("add".into(), json!({"a": 12, "b": 30}))]
    );
}

#[test]
fn schemas_as_schemars_writes_them() {
    let answer = say("What is the weather in Paris in fahrenheit for the next 3 days?", &everything());
    assert_eq!(
        calls(&answer),
        [("get_weather".into(), json!({"city": "Paris", "unit": "fahrenheit", "days": 3}))]
    );
    assert_eq!(answer.finish, FinishReason::ToolCalls);
    let answer = say("What's the weather in Rome?", &everything());
    assert_eq!(
        calls(&answer),
        [("get_weather".into(), json!({"city": "Rome"}))],
        "optional arguments need evidence"
    );
    let answer = say("weather in berlin", &everything());
    assert_eq!(calls(&answer), [("get_weather".into(), json!({"city": "berlin"}))]);
}

#[test]
fn nested_objects_and_lists() {
    let input = json!({
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "attendees": {"type": "array", "items": {"type": "string", "format": "email"}},
            "when": {"$ref": "#/$defs/When"},
        },
        "required": ["title", "when", "attendees"],
        "$defs": {"When": {"type": "object", "properties": {
            "date": {"type": "string", "format": "date"},
            "minutes": {"type": "integer", "description": "Duration in minutes"},
        }, "required": ["date"]}},
    });
    let meeting = ToolSpec::new("create_meeting", "Creates a meeting in the calendar.", input);
    let text = "Create a meeting called 'Budget' on 3 May 2026 for 45 minutes with ada@example.org and bob@example.org";
    let want = json!({"title": "Budget", "attendees": ["ada@example.org", "bob@example.org"], "when": {"date": "2026-05-03", "minutes": 45}});
    assert_eq!(calls(&say(text, &[meeting])), [("create_meeting".into(), want)]);
}

#[test]
fn words_of_the_users_own() {
    for (text, tool, want) in [
        ("remember that my cat is called Miso", "remember", json!({"text": "my cat is called Miso"})),
        ("Please remember that my cat is called Miso.", "remember", json!({"text": "my cat is called Miso"})),
        ("My name is Ada", "remember", json!({"text": "My name is Ada"})),
        ("note: buy milk", "add_note", json!({"text": "buy milk"})),
        ("Search the web for the history of tea", "web_search", json!({"query": "history of tea"})),
    ] {
        assert_eq!(calls(&say(text, &everything())), [(tool.into(), want)], "{text}");
    }
}

#[test]
fn a_missing_argument_is_asked_for_by_name() {
    for text in ["What's the weather?", "what is the weather like today?"] {
        let answer = say(text, &everything());
        assert!(calls(&answer).is_empty(), "{text}: {answer:?}");
        assert_eq!(answer.finish, FinishReason::Stop);
        let said = answer.message.to_text();
        assert!(said.contains("`get_weather`") && said.contains("`city`"), "{said}");
    }
    let answer = say("Send an email to Bob saying hello", &everything());
    assert!(answer.message.to_text().contains("`to`"), "a name is no address: {answer:?}");
}

#[test]
fn dates_never_come_from_the_clock() {
    let asked = say("Set a reminder to water the plants tomorrow", &everything());
    assert!(calls(&asked).is_empty() && asked.message.to_text().contains("`date`"), "{asked:?}");
    let request = Request::new(
        "",
        [
            Message::system("Today is 2026-05-03."),
            Message::user("Set a reminder for tomorrow: water the plants"),
        ],
    )
    .tools(everything());
    assert_eq!(
        calls(&ask(&request)),
        [("set_reminder".into(), json!({"text": "water the plants", "date": "2026-05-04"}))]
    );
}

#[test]
fn several_requests_become_several_calls() {
    let answer = say("What is the weather in Paris and in Rome?", &everything());
    let want = [
        ("get_weather".to_owned(), json!({"city": "Paris"})),
        ("get_weather".to_owned(), json!({"city": "Rome"})),
    ];
    assert_eq!(calls(&answer), want);
    let ids: Vec<&str> = answer.message.tool_calls().map(|c| c.id.as_str()).collect();
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.starts_with("offline_")), "{ids:?}");
    let answer = say(
        "What is the weather in Paris and send an email to ada@example.org saying see you soon",
        &everything(),
    );
    let want = [
        ("get_weather".to_owned(), json!({"city": "Paris"})),
        ("send_email".to_owned(), json!({"to": "ada@example.org", "body": "see you soon"})),
    ];
    assert_eq!(calls(&answer), want);
}

/// A conversation in which `answer` was given and `results` came back.
fn continued(text: &str, answer: &Response, results: &[(ToolStatus, &str)]) -> Request {
    let results = answer
        .message
        .tool_calls()
        .zip(results)
        .map(|(call, (status, said))| ToolResult::new(call, status.clone(), *said));
    let messages = [Message::user(text), answer.message.clone(), Message::tool_results(results)];
    Request::new("", messages).tools(everything())
}

#[test]
fn results_are_told_in_plain_words() {
    let text = "What is 17 times 23?";
    let first = say(text, &everything());
    let answer = ask(&continued(text, &first, &[(ToolStatus::Ok, "391")]));
    assert_eq!((answer.message.to_text().as_str(), &answer.finish), ("391", &FinishReason::Stop));
    let answer = ask(&continued(text, &first, &[(ToolStatus::Error, "division by zero")]));
    assert!(
        answer.message.to_text().contains("failed") && answer.message.to_text().contains("division by zero")
    );
    let text = "What is the weather in Paris and in Rome?";
    let first = say(text, &everything());
    let answer = ask(&continued(text, &first, &[(ToolStatus::Ok, "sunny"), (ToolStatus::Ok, "rain")]));
    assert_eq!(answer.message.to_text().lines().count(), 2);
    assert!(calls(&answer).is_empty(), "one round of calls per message");
}

#[test]
fn ids_stay_unique_over_rounds() {
    let text = "What is 17 times 23?";
    let first = say(text, &everything());
    let mut request = continued(text, &first, &[(ToolStatus::Ok, "391")]);
    request.messages.push(Message::assistant("391"));
    request.messages.push(Message::user("What is 2 plus 2?"));
    let second = ask(&request);
    let id = |r: &Response| r.message.tool_calls().next().unwrap().id.clone();
    assert_ne!(id(&first), id(&second));
    // Compaction that leaves only the last call keeps the numbers going.
    request.messages.drain(..1);
    assert_ne!(id(&first), id(&ask(&request)));
}

#[test]
fn skills_are_chosen_by_their_lines_and_followed_once() {
    for (text, skill) in [
        ("Merge these two PDF files", "pdf-tools"),
        ("Write a short poem about autumn", "haiku"),
        ("Edit the Excel workbook", "spreadsheets"),
    ] {
        assert_eq!(
            calls(&say(text, &everything())),
            [("use_skill".into(), json!({"skill": skill}))],
            "{text}"
        );
    }
    let text = "Write a haiku about the weather in Paris";
    let call = ToolCall::new("offline_1", "use_skill", json!({"skill": "haiku"}));
    let assistant = Message { role: Role::Assistant, parts: vec![Part::ToolCall(call.clone())] };
    let result = Message::tool_results([ToolResult::new(
        &call,
        ToolStatus::Ok,
        "Three lines of 5, 7 and 5 syllables.",
    )]);
    let request =
        Request::new("", [Message::user(text), assistant.clone(), result.clone()]).tools(everything());
    assert_eq!(
        calls(&ask(&request)),
        [("get_weather".into(), json!({"city": "Paris"}))],
        "one further tool may follow"
    );
    let request =
        Request::new("", [Message::user("Write a haiku"), assistant, result]).tools([skills(), calculator()]);
    let answer = ask(&request);
    assert!(calls(&answer).is_empty() && answer.message.to_text().contains("5, 7 and 5"), "{answer:?}");
}

#[test]
fn memories_answer_questions() {
    let ask_with = |memories: &str, question: &str| {
        let request = Request::new("", [Message::system(memories.to_owned()), Message::user(question)])
            .tools(everything());
        ask(&request)
    };
    let memories = "Memories that may help:\n- my cat is called Miso\n- I live in Lisbon\n- My favourite colour is green";
    let answer = ask_with(memories, "What is my cat called?");
    assert_eq!(answer.message.to_text(), "Your cat is called Miso.");
    assert!(ask_with(memories, "Where do I live?").message.to_text().contains("Lisbon"));
    assert!(ask_with(memories, "What's my favourite colour?").message.to_text().contains("green"));
    let answer = ask_with(memories, "What is the mass of the moon?");
    assert!(!answer.message.to_text().contains("Miso"), "{answer:?}");
    // Said earlier in the conversation, by the user.
    let request = Request::new(
        "",
        [
            Message::user("My sister is called Rosa."),
            Message::assistant("Noted."),
            Message::user("What is my sister called?"),
        ],
    );
    assert!(ask(&request).message.to_text().contains("Rosa"));
}

#[test]
fn it_never_pretends_to_be_a_model() {
    let answer = say("Explain the causes of the First World War", &[calculator(), weather()]);
    let said = answer.message.to_text();
    for word in [
        "no language model",
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "Ollama",
        "`calculator`",
        "`get_weather`",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    for text in ["hello", "Hi there!", "thanks", "Good morning"] {
        let answer = say(text, &everything());
        assert!(calls(&answer).is_empty() && !answer.message.to_text().is_empty(), "{text}");
    }
    assert!(say("", &everything()).message.to_text().contains("no language model"));
}

#[test]
fn unrelated_and_foreign_texts_call_nothing() {
    for text in [
        "Who wrote Hamlet?",
        "Erkläre mir die Relativitätstheorie",
        "今天天气怎么样",
        "최근 소식을 알려줘",
        "مرحبا كيف حالك",
        "Explique-moi la photosynthèse",
        "🙂🙂🙂",
        "asdf qwer",
    ] {
        let answer = say(text, &everything());
        assert!(calls(&answer).is_empty(), "{text}: {:?}", calls(&answer));
    }
}

#[test]
fn tool_choice_is_obeyed() {
    let mut request = Request::new("", [Message::user("What is 17 times 23?")]).tools(everything());
    request.tool_choice = ToolChoice::None;
    assert!(calls(&ask(&request)).is_empty());
    request.tool_choice = ToolChoice::Tool("web_search".into());
    assert_eq!(calls(&ask(&request))[0].0, "web_search");
    let mut request = Request::new("", [Message::user("Lisbon")]).tools([weather()]);
    request.tool_choice = ToolChoice::Required;
    assert_eq!(calls(&ask(&request)), [("get_weather".into(), json!({"city": "Lisbon"}))]);
}

#[test]
fn a_constraint_that_cannot_be_checked_is_asked_for() {
    let input = schema(
        json!({"code": {"type": "string", "pattern": "^[A-Z]{3}$", "description": "Code of the airport"}}),
        &["code"],
    );
    let tool = ToolSpec::new("airport_info", "Shows information about an airport.", input);
    let answer = say("Show information about the airport LIS", &[tool]);
    assert!(calls(&answer).is_empty() && answer.message.to_text().contains("`code`"), "{answer:?}");
}

#[test]
fn text_streams_in_pieces_and_the_same_request_gives_the_same_events() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let request = Request::new("", [Message::user("Tell me a story")]).tools(everything());
    let collect = || {
        runtime.block_on(async {
            let mut events = Offline::new().stream(&Cx::default(), &request).await.unwrap();
            let mut out = Vec::new();
            while let Some(event) = std::future::poll_fn(|task| events.as_mut().poll_next(task)).await {
                out.push(event.unwrap());
            }
            out
        })
    };
    let events = collect();
    assert!(events.iter().filter(|e| matches!(e, StreamEvent::Delta { .. })).count() > 3);
    assert_eq!(events, collect());
    assert!(events.iter().any(|e| matches!(e, StreamEvent::Usage(u) if u.input > 0 && u.output > 0)));
}

#[test]
fn a_cancelled_context_gets_no_answer() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let cx = Cx::default();
    cx.cancel().cancel();
    assert!(
        runtime.block_on(Offline::new().complete(&cx, &Request::new("", [Message::user("hi")]))).is_err()
    );
}

#[test]
fn a_length_limit_is_kept_and_reported() {
    let mut request = Request::new("", [Message::user("Tell me a story")]);
    request.max_tokens = Some(5);
    let answer = ask(&request);
    assert_eq!(answer.finish, FinishReason::Length);
    assert!(answer.message.to_text().len() <= 20);
}

// ---- kinds of arguments, each in words of its own

/// The arguments that one tool gets from a message; null if it is not called exactly once.
fn args(text: &str, name: &str, about: &str, properties: Value, required: &[&str]) -> Value {
    let tool = ToolSpec::new(name, about, schema(properties, required));
    let answer = say(text, &[tool]);
    let all = calls(&answer);
    match all.as_slice() {
        [(_, args)] => args.clone(),
        _ => json!({"calls": all.len(), "said": answer.message.to_text()}),
    }
}

#[test]
fn numbers_go_where_their_units_and_words_say() {
    let properties = json!({
        "volume": {"type": "number", "description": "Volume of the tank in liters"},
        "pressure": {"type": "number", "description": "Pressure in bar"},
        "temperature": {"type": "number", "description": "Temperature in degrees Celsius"},
    });
    for (text, want) in [
        (
            "Check the boiler: a tank of 80 liters at 3 bar and 65 degrees",
            json!({"volume": 80, "pressure": 3, "temperature": 65}),
        ),
        (
            "Check the boiler with a temperature of 71.5, a pressure of 2 and a volume of 120",
            json!({"volume": 120, "pressure": 2, "temperature": 71.5}),
        ),
    ] {
        let got = args(
            text,
            "check_boiler",
            "Checks a boiler.",
            properties.clone(),
            &["volume", "pressure", "temperature"],
        );
        assert_eq!(got, want, "{text}");
    }
    let tip = json!({
        "amount": {"type": "number", "description": "Amount of the bill"},
        "rate": {"type": "number", "description": "Tip as a decimal rate"},
    });
    let got = args(
        "Calculate the tip for a bill of $1,250.50 at 15%",
        "calculate_tip",
        "Calculates a tip.",
        tip,
        &["amount", "rate"],
    );
    assert_eq!(got, json!({"amount": 1250.5, "rate": 0.15}));
    let table = json!({"guests": {"type": "integer", "description": "Number of guests"}, "time": {"type": "string", "format": "time"}});
    let got = args(
        "Reserve a table for six people at 19:30",
        "reserve_table",
        "Reserves a table.",
        table,
        &["guests"],
    );
    assert_eq!(got, json!({"guests": 6, "time": "19:30:00"}));
}

#[test]
fn alike_numbers_keep_the_order_of_the_message() {
    let sides =
        json!({"side_a": {"type": "integer"}, "side_b": {"type": "integer"}, "side_c": {"type": "integer"}});
    let got = args(
        "Find the area of a triangle whose three sides are 7, 8 and 9",
        "triangle_area",
        "Area of a triangle.",
        sides,
        &["side_a", "side_b", "side_c"],
    );
    assert_eq!(got, json!({"side_a": 7, "side_b": 8, "side_c": 9}));
}

#[test]
fn dates_take_the_layout_that_is_asked_for() {
    for (layout, want) in
        [("YYYY-MM-DD", "2027-02-09"), ("DD/MM/YYYY", "09/02/2027"), ("MM-DD-YYYY", "02-09-2027")]
    {
        let properties = json!({"day": {"type": "string", "description": format!("Day of the delivery in the format {layout}")}});
        let got = args(
            "Schedule the delivery for February 9th, 2027",
            "schedule_delivery",
            "Schedules a delivery.",
            properties,
            &["day"],
        );
        assert_eq!(got, json!({"day": want}), "{layout}");
    }
}

#[test]
fn beginnings_come_before_ends() {
    let trip = json!({"start_city": {"type": "string"}, "end_city": {"type": "string"}});
    for text in [
        "How long is the train ride between Leeds and York?",
        "How long is the train ride from Leeds to York?",
        "How long is the train ride to York from Leeds?",
    ] {
        let got = args(
            text,
            "train_ride",
            "How long a train ride takes.",
            trip.clone(),
            &["start_city", "end_city"],
        );
        assert_eq!(got, json!({"start_city": "Leeds", "end_city": "York"}), "{text}");
    }
    let years = json!({"from_year": {"type": "integer"}, "to_year": {"type": "integer"}});
    let got = args(
        "Show the rainfall between 1990 and 2005",
        "rainfall",
        "Rainfall over the years.",
        years,
        &["from_year", "to_year"],
    );
    assert_eq!(got, json!({"from_year": 1990, "to_year": 2005}));
}

#[test]
fn options_are_found_in_their_spellings() {
    let properties = json!({
        "size": {"type": "string", "enum": ["small", "medium", "large"]},
        "crust": {"type": "string", "enum": ["thin", "deep-dish"]},
        "toppings": {"type": "array", "items": {"type": "string", "enum": ["mushroom", "olive", "onion"]}},
    });
    let got = args(
        "Order a Large pizza with a deep dish crust, olives and mushrooms",
        "order_pizza",
        "Orders a pizza.",
        properties.clone(),
        &["size"],
    );
    assert_eq!(got["size"], "large");
    assert_eq!(got["crust"], "deep-dish");
    let mut toppings: Vec<&str> =
        got["toppings"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    toppings.sort_unstable();
    assert_eq!(toppings, ["mushroom", "olive"]);
    let got = args("Order a small pizza", "order_pizza", "Orders a pizza.", properties, &["size"]);
    assert_eq!(got, json!({"size": "small"}), "options that were not named are left out");
    let voice = json!({
        "text": {"type": "string"},
        "language": {"type": "string", "enum": ["it-IT", "de-DE", "en-US"], "description": "Language code"},
    });
    let got =
        args("Read it aloud: the shop is closed", "read_aloud", "Reads a text aloud.", voice, &["text"]);
    assert_eq!(got, json!({"text": "the shop is closed"}), "'it' is not Italian");
}

#[test]
fn flags_are_raised_and_lowered() {
    let properties = json!({
        "room": {"type": "string", "description": "Name of the room"},
        "breakfast": {"type": "boolean", "description": "Whether breakfast is included"},
    });
    for (text, want) in [
        ("Book the room 'Lake View' with breakfast", json!({"room": "Lake View", "breakfast": true})),
        ("Book the room 'Lake View' without breakfast", json!({"room": "Lake View", "breakfast": false})),
        ("Book the room 'Lake View'", json!({"room": "Lake View"})),
    ] {
        assert_eq!(args(text, "book_room", "Books a room.", properties.clone(), &["room"]), want, "{text}");
    }
}

#[test]
fn names_in_quotes_and_words_around_them() {
    let properties =
        json!({"name": {"type": "string"}, "owner": {"type": "string"}, "folder": {"type": "string"}});
    let required = ["name", "owner", "folder"];
    for text in [
        "Create a project with the name 'apollo', the owner 'kim' and the folder 'space'",
        "Create a project with 'apollo' as name, 'kim' as the owner and 'space' as the folder",
        "Create a project in the folder \"space\", owner \"kim\", name \"apollo\"",
    ] {
        let got = args(text, "create_project", "Creates a project.", properties.clone(), &required);
        assert_eq!(got, json!({"name": "apollo", "owner": "kim", "folder": "space"}), "{text}");
    }
    let fetch = json!({"url": {"type": "string", "description": "Address of the page"}});
    let got = args(
        "Please fetch the page 'https://example.org/a?b=1'",
        "fetch_page",
        "Fetches a page.",
        fetch,
        &["url"],
    );
    assert_eq!(got, json!({"url": "https://example.org/a?b=1"}));
    let open = json!({"path": {"type": "string", "description": "Path of the file"}});
    let got = args(
        "Open the file notes.txt in the editor",
        "open_file",
        "Opens a file in the editor.",
        open,
        &["path"],
    );
    assert_eq!(got, json!({"path": "notes.txt"}));
}

#[test]
fn lists_matrices_objects_and_formulas() {
    let list = json!({"names": {"type": "array", "items": {"type": "string"}, "description": "Names of the guests"}});
    let got =
        args("Invite the guests Ann, Bert and Carla", "invite_guests", "Invites guests.", list, &["names"]);
    assert_eq!(got, json!({"names": ["Ann", "Bert", "Carla"]}));
    let matrix =
        json!({"matrix": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}});
    let got =
        args("Invert the matrix [[2, 1], [5, 3]]", "invert_matrix", "Inverts a matrix.", matrix, &["matrix"]);
    assert_eq!(got, json!({"matrix": [[2, 1], [5, 3]]}));
    let points =
        json!({"points": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}});
    let got = args(
        "Draw a polygon with the points (0, 0), (4, 0) and (4, 3)",
        "draw_polygon",
        "Draws a polygon.",
        points,
        &["points"],
    );
    assert_eq!(got, json!({"points": [[0, 0], [4, 0], [4, 3]]}));
    let labels = json!({"labels": {"type": "object", "description": "Labels to set"}});
    let got = args(
        "Set the labels {\"team\": \"red\", \"tier\": 2}",
        "set_labels",
        "Sets labels.",
        labels,
        &["labels"],
    );
    assert_eq!(got, json!({"labels": {"team": "red", "tier": 2}}));
    let function = json!({"function": {"type": "string", "description": "Mathematical function of x"}});
    let got = args(
        "Plot the function 4x^2 - 3x + 7",
        "plot_function",
        "Plots a function.",
        function,
        &["function"],
    );
    assert_eq!(got, json!({"function": "4x^2 - 3x + 7"}));
}

#[test]
fn places_are_as_full_as_asked_for() {
    let plain = json!({"location": {"type": "string", "description": "Where to look"}});
    let full =
        json!({"location": {"type": "string", "description": "City and state, e.g. San Francisco, CA"}});
    let about = "Finds parking near a place.";
    for (text, properties, want) in [
        ("Find parking in Seattle", &plain, "Seattle"),
        ("Find parking in Seattle", &full, "Seattle, WA"),
        ("Find parking at 12 Oak Street, Dayton, Ohio", &full, "12 Oak Street, Dayton, Ohio"),
        ("Find parking in NYC", &plain, "New York"),
    ] {
        let got = args(text, "find_parking", about, properties.clone(), &["location"]);
        assert_eq!(got, json!({"location": want}), "{text}");
    }
    let both = json!({"city": {"type": "string"}, "state": {"type": "string", "description": "Two-letter code of the state"}});
    let got =
        args("Find the sales tax of Denver", "sales_tax", "Sales tax of a city.", both, &["city", "state"]);
    assert_eq!(got, json!({"city": "Denver", "state": "CO"}));
}

#[test]
fn one_thing_of_several_is_several_calls() {
    let area = ToolSpec::new(
        "rectangle_area",
        "Area of a rectangle.",
        schema(json!({"width": {"type": "number"}, "height": {"type": "number"}}), &["width", "height"]),
    );
    let want = |all: &[(i64, i64)]| -> Vec<(String, Value)> {
        all.iter().map(|(w, h)| ("rectangle_area".to_owned(), json!({"width": w, "height": h}))).collect()
    };
    for text in [
        "Find the area of a rectangle with a width of 3 and a height of 4. Also of another one with a width of 5 and a height of 6.",
        "I have two rectangles. The first has a width of 3 and a height of 4, the second has a width of 5 and a height of 6. What is the area of each rectangle?",
    ] {
        assert_eq!(calls(&say(text, std::slice::from_ref(&area))), want(&[(3, 4), (5, 6)]), "{text}");
    }
    let one = "What is the area of a rectangle? Its width is 3. Its height is 4.";
    assert_eq!(calls(&say(one, &[area])), want(&[(3, 4)]), "several sentences on one thing");
    let timer = ToolSpec::new(
        "set_timer",
        "Sets a timer.",
        schema(
            json!({"minutes": {"type": "integer", "description": "Minutes until it rings"}}),
            &["minutes"],
        ),
    );
    let got = calls(&say("Set timers for 5, 10 and 15 minutes", &[timer]));
    let minutes: Vec<&Value> = got.iter().map(|(_, args)| &args["minutes"]).collect();
    assert_eq!(minutes, [5, 10, 15]);
    let play = ToolSpec::new(
        "play_artist",
        "Plays songs of an artist.",
        schema(json!({"artist": {"type": "string"}, "minutes": {"type": "integer"}}), &["artist", "minutes"]),
    );
    let got = calls(&say(
        "Play songs of the artists Nina Simone and Bob Marley for 30 and 45 minutes respectively",
        &[play],
    ));
    let got: Vec<Value> = got.into_iter().map(|(_, args)| args).collect();
    assert_eq!(
        got,
        [json!({"artist": "Nina Simone", "minutes": 30}), json!({"artist": "Bob Marley", "minutes": 45})]
    );
}

#[test]
fn confidence_tells_fitting_from_foreign_requests() {
    let sure = |text: &str| {
        let request = Request::new("", [Message::user(text)]).tools([weather(), mail(), search()]);
        Offline::new().choose(&request)
    };
    let fitting = [
        "What is the weather in Lima?",
        "Send an email to bo@example.org saying hi",
        "Search the web for tea",
    ];
    let others =
        ["Why is the sky blue?", "Sing a song", "Who won the cup in 1974?", "Compose a waltz in D minor"];
    let least = fitting.iter().map(|t| sure(t).confidence).fold(1.0, f32::min);
    let most = others.iter().map(|t| sure(t).confidence).fold(0.0, f32::max);
    assert!(least > most, "{least} {most}");
    assert!(others.iter().all(|t| sure(t).calls.is_empty()));
    assert_eq!(sure("What is the weather in Lima?").tool.as_deref(), Some("get_weather"));
    let asked = sure("What's the weather?");
    assert_eq!((asked.calls.len(), asked.missing), (0, vec!["city".to_owned()]));
    let none = Offline::new().choose(&Request::new("", [Message::user("hello")]));
    assert_eq!((none.tool, none.confidence, none.calls.len()), (None, 0.0, 0));
}

#[test]
fn long_results_are_answered_from() {
    let mut page = String::from("The town has a long history.\n");
    for n in 0..40 {
        page.push_str(&format!("Paragraph {n} speaks of streets and houses.\n"));
    }
    page.push_str("The lighthouse was built in 1871 by Ada Holm.\n");
    let call = ToolCall::new("offline_1", "read_page", json!({}));
    let assistant = Message { role: Role::Assistant, parts: vec![Part::ToolCall(call.clone())] };
    let result = Message::tool_results([ToolResult::new(&call, ToolStatus::Ok, page)]);
    let asked = Message::user("Read the page and tell me when the lighthouse was built");
    let said = ask(&Request::new("", [asked, assistant, result])).message.to_text();
    assert!(said.starts_with("The lighthouse was built in 1871 by Ada Holm."), "{said}");
    assert!(said.contains("`read_page`") && said.contains("Paragraph 7"), "the rest is not hidden: {said}");
}

#[test]
fn what_was_said_before_is_remembered_word_for_word() {
    let talk = |question: &str| {
        let request = Request::new(
            "",
            [
                Message::user("My dog is called Pixel. I parked the car on level 4."),
                Message::assistant("Noted."),
                Message::user(question),
            ],
        )
        .tools(everything());
        ask(&request)
    };
    for question in
        ["What did I say my dog is called?", "Remind me what my dog is called", "What's the name of my dog?"]
    {
        let answer = talk(question);
        assert!(answer.message.to_text().contains("Your dog is called Pixel."), "{question}: {answer:?}");
    }
    let both = talk("What is my dog called? And where did I park my car?").message.to_text();
    assert!(both.contains("Pixel") && both.contains("level 4"), "{both}");
    let half = talk("What is my dog called? And what is my shoe size?").message.to_text();
    assert!(half.contains("Pixel") && half.contains("what is my shoe size"), "{half}");
}

#[test]
fn other_languages_get_no_nonsense() {
    for text in [
        "Kannst du mir bitte ein Gedicht über den Herbst schreiben?",
        "¿Me puedes explicar cómo funciona un motor de avión para niños?",
        "Quelle est la meilleure façon de cuire les pâtes dans une casserole?",
        "Saya ingin tahu berapa lama perjalanan ini dengan kereta",
        "Puoi dirmi chi ha scritto questo libro per la scuola?",
    ] {
        let answer = say(text, &everything());
        assert!(calls(&answer).is_empty(), "{text}: {:?}", calls(&answer));
    }
}

// ---- hostile input

/// Deterministic pseudo-random numbers (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.roll(all.len())]
    }

    fn text(&mut self) -> String {
        const PIECES: &[&str] = &[
            "weather",
            " in ",
            "Paris",
            "and",
            "17",
            "*",
            "23",
            "(",
            ")",
            "[1,2",
            "]",
            "'",
            "\"",
            "tomorrow",
            "3 May 2026",
            "-5.5%",
            "$1,000",
            " ",
            "\n",
            "é",
            "日本",
            "🙂",
            "\u{0}",
            "\u{202e}",
            "a@b.co",
            "https://x.y/z?",
            "true",
            "no",
            "city",
            "unit",
            "celsius",
            "remember that ",
            ":",
            ",",
            ".",
            "?",
            "''",
            "İ",
            "ß",
            "'s",
            "’",
            "1e999",
            "99999999999999999999",
            "٣",
            "½",
            "to",
            "from",
            "CA123",
            "x^2",
            "+",
            "--",
            "10:30 pm",
        ];
        let n = self.roll(24);
        let mut out = String::new();
        for _ in 0..n {
            out.push_str(self.of(PIECES));
            if self.roll(2) == 0 {
                out.push(' ');
            }
        }
        out
    }

    fn schema(&mut self, depth: usize) -> Value {
        let about = self.text();
        match self.roll(if depth > 3 { 8 } else { 13 }) {
            0 => json!({"type": "string", "description": about}),
            1 => {
                json!({"type": "integer", "minimum": self.roll(50), "maximum": self.roll(100), "description": about})
            }
            2 => json!({"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.5}),
            3 => json!({"type": "boolean", "description": about}),
            4 => json!({"enum": ["celsius", "Paris", 17, null, true], "description": about}),
            5 => {
                json!({"type": "string", "format": self.of(&["date", "date-time", "email", "uri", "uuid", "time", "odd"]), "minLength": self.roll(4)})
            }
            6 => json!({"type": "string", "pattern": "^a", "maxLength": self.roll(10)}),
            7 => json!({"$ref": self.of(&["#/$defs/A", "#/$defs/Loop", "#", "#/nowhere", "x"])}),
            8 => {
                json!({"type": "array", "items": self.schema(depth + 1), "minItems": self.roll(3), "maxItems": self.roll(4), "uniqueItems": self.roll(2) == 0})
            }
            9 => json!({"anyOf": [self.schema(depth + 1), {"type": "null"}]}),
            10 => json!({"oneOf": [{"const": "Paris"}, {"const": 23}], "default": self.roll(9)}),
            11 => json!([1, "not", "a schema"]),
            _ => {
                let mut properties = serde_json::Map::new();
                for _ in 0..self.roll(5) {
                    let name = if self.roll(3) == 0 {
                        self.text()
                    } else {
                        self.of(&["city", "expression", "count", "date", "text", "to"]).to_owned()
                    };
                    properties.insert(name, self.schema(depth + 1));
                }
                let required: Vec<String> =
                    properties.keys().filter(|_| self.roll(2) == 0).cloned().collect();
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": self.roll(2) == 0})
            }
        }
    }
}

/// An independent check of the keywords above. `None` when it gives up on a schema that loops.
fn obeys(root: &Value, node: &Value, value: &Value, fuel: &mut u32) -> Option<bool> {
    *fuel = fuel.checked_sub(1)?;
    let Some(schema) = node.as_object() else { return Some(false) };
    for (key, rule) in schema {
        let ok = match key.as_str() {
            "type" => {
                let one = |t: &str| match t {
                    "string" => value.is_string(),
                    "integer" => {
                        value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
                    }
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    _ => value.is_null(),
                };
                rule.as_str()
                    .map_or_else(|| rule.as_array().unwrap().iter().any(|t| one(t.as_str().unwrap())), one)
            }
            "$ref" => {
                let target = rule.as_str()?.strip_prefix('#').and_then(|p| root.pointer(p));
                match target {
                    Some(target) => obeys(root, target, value, fuel)?,
                    None => false,
                }
            }
            "enum" => rule.as_array()?.contains(value),
            "const" => rule == value,
            "anyOf" => {
                let mut any = false;
                for s in rule.as_array()? {
                    any |= obeys(root, s, value, fuel)?;
                }
                any
            }
            "oneOf" => {
                let mut n = 0;
                for s in rule.as_array()? {
                    n += u32::from(obeys(root, s, value, fuel)?);
                }
                n == 1
            }
            "minimum" => value.as_f64().is_none_or(|v| v >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|v| v <= rule.as_f64().unwrap()),
            "exclusiveMinimum" => value.as_f64().is_none_or(|v| v > rule.as_f64().unwrap()),
            "multipleOf" => value.as_f64().is_none_or(|v| (v / rule.as_f64().unwrap()).fract() == 0.0),
            "minLength" => {
                value.as_str().is_none_or(|s| s.chars().count() >= rule.as_u64().unwrap() as usize)
            }
            "maxLength" => {
                value.as_str().is_none_or(|s| s.chars().count() <= rule.as_u64().unwrap() as usize)
            }
            "pattern" => value.as_str().is_none_or(|s| s.starts_with('a')),
            "minItems" => value.as_array().is_none_or(|a| a.len() >= rule.as_u64().unwrap() as usize),
            "maxItems" => value.as_array().is_none_or(|a| a.len() <= rule.as_u64().unwrap() as usize),
            "uniqueItems" => value
                .as_array()
                .is_none_or(|a| rule == false || (1..a.len()).all(|i| !a[..i].contains(&a[i]))),
            "items" => {
                let mut all = true;
                for v in value.as_array().into_iter().flatten() {
                    all &= obeys(root, rule, v, fuel)?;
                }
                all
            }
            "required" => value
                .as_object()
                .is_none_or(|o| rule.as_array().unwrap().iter().all(|n| o.contains_key(n.as_str().unwrap()))),
            "properties" => {
                let mut all = true;
                for (name, v) in value.as_object().into_iter().flatten() {
                    if let Some(s) = rule.get(name) {
                        all &= obeys(root, s, v, fuel)?;
                    }
                }
                all
            }
            "additionalProperties" => {
                rule == true
                    || value
                        .as_object()
                        .is_none_or(|o| o.keys().all(|k| schema["properties"].get(k).is_some()))
            }
            "format" => value.as_str().is_none_or(|s| match rule.as_str().unwrap() {
                "date" => s.len() == 10 && s.split('-').map(str::len).eq([4, 2, 2]),
                "date-time" => s.len() == 20 && s.as_bytes()[10] == b'T' && s.ends_with('Z'),
                "time" => s.len() == 8 && s.split(':').map(str::len).eq([2, 2, 2]),
                "email" => s.contains('@') && !s.contains(' '),
                "uri" => s.contains(':') && !s.contains(' '),
                "uuid" => s.len() == 36,
                _ => true,
            }),
            _ => true,
        };
        if !ok {
            return Some(false);
        }
    }
    Some(true)
}

#[test]
fn no_text_and_no_schema_makes_it_panic_or_break_a_schema() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut made, mut judged) = (0, 0);
    for round in 0..4_000 {
        let mut tools = Vec::new();
        for n in 0..1 + dice.roll(4) {
            let mut input = if dice.roll(10) == 0 {
                dice.schema(0)
            } else {
                let mut properties = serde_json::Map::new();
                for name in ["city", "expression", "count", "date", "text"] {
                    if dice.roll(2) == 0 {
                        properties.insert(name.into(), dice.schema(1));
                    }
                }
                let required: Vec<String> = properties.keys().filter(|_| dice.roll(3) > 0).cloned().collect();
                json!({"type": "object", "properties": properties, "required": required})
            };
            if let Some(object) = input.as_object_mut() {
                object.insert(
                    "$defs".into(),
                    json!({"A": {"type": "string"}, "Loop": {"$ref": "#/$defs/Loop"}}),
                );
            }
            let name = dice.of(&["get_weather", "calculator", "remember", "use_skill", "日本", "", "x"]);
            tools.push(ToolSpec::new(
                format!("{name}{n}"),
                format!("weather in a city, calculates. {}", dice.text()),
                input,
            ));
        }
        let mut request =
            Request::new("", [Message::system(dice.text()), Message::user(dice.text())]).tools(tools);
        if round % 3 == 0 {
            request.tool_choice = ToolChoice::Required;
        }
        let answer = ask(&request);
        for call in answer.message.tool_calls() {
            made += 1;
            let tool = request.tools.iter().find(|t| t.name == call.name).unwrap();
            if let Some(ok) = obeys(&tool.input, &tool.input, &call.args, &mut 100_000) {
                judged += 1;
                assert!(ok, "round {round}: {} for {}", call.args, tool.input);
            }
        }
    }
    assert!(
        judged > 200 && judged * 10 >= made * 9,
        "the dice must reach calls: {made} made, {judged} judged"
    );
}

#[test]
fn huge_inputs_take_bounded_time() {
    let started = Instant::now();
    let mut long = "weather in Paris and (((( [[[[ '' \" 12, 13, 14, ".repeat(220_000);
    long.push_str("end");
    say(&long, &everything());
    say(&"a".repeat(10_000_000), &everything());
    say(&"(".repeat(1_000_000), &[calculator()]);
    let many: Vec<ToolSpec> = (0..10_000)
        .map(|i| {
            let mut tool = weather();
            tool.name = format!("get_weather_{i}");
            tool
        })
        .collect();
    say("weather in Paris", &many);
    let mut deep = json!({"type": "string"});
    for _ in 0..60 {
        deep = json!({"type": "object", "properties": {"city": deep}, "required": ["city"]});
    }
    say("weather in Paris", &[ToolSpec::new("get_weather", "weather", deep)]);
    let wide: serde_json::Map<String, Value> = (0..5_000)
        .map(|i| (format!("city_{i}"), json!({"type": "string", "description": "a city ".repeat(500)})))
        .collect();
    say(
        "weather in Paris",
        &[ToolSpec::new("get_weather", "weather", json!({"type": "object", "properties": wide}))],
    );
    let options: Vec<String> = (0..20_000).map(|i| format!("option {i}")).collect();
    say(
        "weather option 7",
        &[ToolSpec::new(
            "get_weather",
            "weather",
            json!({"type": "object", "properties": {"o": {"enum": options}}}),
        )],
    );
    // Generous: an unoptimised build on a busy machine. What it guards against is quadratic growth.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn a_request_with_forty_tools_is_quick() {
    let mut tools = everything();
    for (i, subject) in ["invoice", "flight", "hotel", "song", "photo", "server", "ticket", "recipe"]
        .iter()
        .cycle()
        .take(32)
        .enumerate()
    {
        let input = schema(
            json!({
                "name": {"type": "string", "description": format!("Name of the {subject}")},
                "limit": {"type": "integer", "description": "How many at most", "default": 10},
                "since": {"type": "string", "format": "date", "description": "First day"},
            }),
            &["name"],
        );
        tools.push(ToolSpec::new(
            format!("find_{subject}_{i}"),
            format!("Finds a {subject} in the archive and shows its details."),
            input,
        ));
    }
    let request =
        Request::new("", [Message::user("What is the weather in Paris in celsius for the next 3 days?")])
            .tools(tools);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let cx = Cx::default();
    let rounds = 200u32;
    runtime.block_on(async {
        Offline::new().complete(&cx, &request).await.unwrap();
        let started = Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(Offline::new().complete(&cx, &request).await.unwrap());
        }
        let each = started.elapsed() / rounds;
        println!("offline: {each:?} per request with {} tools", request.tools.len());
        let most = if cfg!(debug_assertions) { 20_000 } else { 2_000 };
        assert!(each.as_micros() < most, "{each:?}");
    });
}
