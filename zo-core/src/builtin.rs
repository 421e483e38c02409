//! The skills that the agent itself brings: memory, activation of skills, and reading on in a long tool output.

use crate::{
    journal::{Journal, Whose, outputs},
    toolbox::READ_OUTPUT,
};
use serde_json::{Value, json};
use std::{fmt, fmt::Write as _, sync::Arc};
use zo_traits::{
    Cx, Effect, Error, ErrorKind, Forget, MemoryId, MemoryStore, NewMemory, Recall, Result, Scope, Skill,
    SkillManifest, ToolCall, ToolOutput, ToolSpec, async_trait,
};

/// `remember`, `recall`, `forget`: the model's own hands on the long-term memory of the scope that it works in.
#[derive(Debug)]
pub(crate) struct MemorySkill {
    manifest: SkillManifest,
    tools: Arc<[ToolSpec]>,
    memory: Arc<dyn MemoryStore>,
}

impl MemorySkill {
    pub(crate) fn new(memory: Arc<dyn MemoryStore>) -> Self {
        let string = |what: &str| json!({"type": "string", "description": what});
        let object = |properties: Value, required: &str| json!({"type": "object", "properties": properties, "required": [required], "additionalProperties": false});
        // Remembering the same text again changes nothing, and so does forgetting again.
        let tools = [
            ToolSpec::new(
                "remember",
                "Store a fact for later conversations: something the user said about themselves, a preference, a decision. \
                 Use it when the user asks to remember something.\nTriggers: remember that, keep in mind, don't forget",
                object(json!({"text": string("The fact, as one plain sentence")}), "text"),
            )
            .effect(Effect::Idempotent),
            ToolSpec::new(
                "recall",
                "Search what was remembered in earlier conversations, best match first, each with its id.",
                object(
                    json!({"query": string("What to look for"),
                        "limit": {"type": "integer", "minimum": 1, "maximum": 50, "description": "Most results, 8 unless given"}}),
                    "query",
                ),
            )
            .effect(Effect::Pure),
            ToolSpec::new(
                "forget",
                "Delete a remembered fact, by the id that recall gave.\nTriggers: forget memory",
                object(json!({"id": string("Id of the memory, 32 hexadecimal digits")}), "id"),
            )
            .effect(Effect::Idempotent),
        ];
        let manifest = SkillManifest::new("memory", "Remember, recall and forget facts across conversations");
        Self { manifest, tools: tools.into(), memory }
    }
}

#[async_trait]
impl Skill for MemorySkill {
    fn manifest(&self) -> &SkillManifest {
        &self.manifest
    }

    fn tools(&self) -> Arc<[ToolSpec]> {
        self.tools.clone()
    }

    async fn call(&self, cx: &Cx, call: &ToolCall) -> Result<ToolOutput> {
        let scope = cx.get::<Scope>().cloned().unwrap_or_default();
        let text = |key: &str| call.args.get(key).and_then(Value::as_str).unwrap_or_default();
        match call.name.as_str() {
            "remember" => {
                let ids = self.memory.remember(cx, &scope, vec![NewMemory::text(text("text"))]).await?;
                let id = ids.first().map(ToString::to_string);
                Ok(ToolOutput::text("remembered").with_data(json!({"id": id})))
            }
            "recall" => {
                let limit = call.args.get("limit").and_then(Value::as_u64).unwrap_or(8);
                let query = Recall::new(text("query"), usize::try_from(limit).unwrap_or(8));
                let hits = self.memory.recall(cx, &scope, &query).await?;
                let mut out = String::new();
                for hit in &hits {
                    let _ = writeln!(out, "- {} (id {})", hit.text, hit.id);
                }
                Ok(ToolOutput::text(if out.is_empty() { "nothing found".into() } else { out }))
            }
            "forget" => {
                let id: MemoryId = text("id").parse()?;
                let n = self.memory.forget(cx, &scope, &Forget::Ids(vec![id])).await?;
                Ok(ToolOutput::text(if n == 0 { "there was no such memory" } else { "forgotten" }))
            }
            other => Err(no_tool(other)),
        }
    }
}

/// `use_skill`: discloses the instructions of a skill when the model asks for them, so that they cost nothing until then.
#[derive(Debug)]
pub(crate) struct UseSkill {
    manifest: SkillManifest,
    tools: Arc<[ToolSpec]>,
    skills: Vec<Arc<dyn Skill>>,
}

impl UseSkill {
    /// `None` when no skill has instructions.
    pub(crate) fn new(skills: &[Arc<dyn Skill>]) -> Option<Self> {
        let mut skills: Vec<Arc<dyn Skill>> =
            skills.iter().filter(|s| s.manifest().has_instructions).cloned().collect();
        skills.sort_by(|a, b| a.manifest().name.cmp(&b.manifest().name));
        if skills.is_empty() {
            return None;
        }
        let mut description = String::from(
            "Load the instructions of a skill before doing a task that it covers, then follow them. The skills:\n",
        );
        for skill in &skills {
            let m = skill.manifest();
            let _ = write!(description, "- {}: {}", m.name, m.description.replace('\n', " "));
            if !m.triggers.is_empty() {
                let _ = write!(description, " (triggers: {})", m.triggers.join(", "));
            }
            description.push('\n');
        }
        let names: Vec<&str> = skills.iter().map(|s| s.manifest().name.as_str()).collect();
        let schema = json!({"type": "object", "additionalProperties": false, "required": ["name"],
            "properties": {"name": {"type": "string", "enum": names, "description": "Name of the skill"}}});
        let tools = [ToolSpec::new("use_skill", description, schema).effect(Effect::Pure)];
        let manifest = SkillManifest::new("use-skill", "Load the instructions of a skill");
        Some(Self { manifest, tools: tools.into(), skills })
    }
}

#[async_trait]
impl Skill for UseSkill {
    fn manifest(&self) -> &SkillManifest {
        &self.manifest
    }

    fn tools(&self) -> Arc<[ToolSpec]> {
        self.tools.clone()
    }

    async fn call(&self, cx: &Cx, call: &ToolCall) -> Result<ToolOutput> {
        let name = call.args.get("name").and_then(Value::as_str).unwrap_or_default();
        match self.skills.iter().find(|s| s.manifest().name == name) {
            Some(skill) => Ok(skill.instructions(cx).await?.into()),
            None => {
                Err(Error::new(ErrorKind::NotFound, "skill.use", format_args!("no skill named {name:?}"))
                    .with_model_text(format!("there is no skill named {name:?}")))
            }
        }
    }
}

/// `read_output`: pages through a tool output that was too long for one result.
pub(crate) struct ReadOutput {
    manifest: SkillManifest,
    tools: Arc<[ToolSpec]>,
    journal: Arc<Journal>,
    page: usize,
}

impl fmt::Debug for ReadOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadOutput")
    }
}

impl ReadOutput {
    pub(crate) fn new(journal: Arc<Journal>, page: usize) -> Self {
        let schema = json!({"type": "object", "additionalProperties": false, "required": ["id", "offset"], "properties": {
            "id": {"type": "string", "description": "Id given where the output was shortened"},
            "offset": {"type": "integer", "minimum": 0, "description": "First byte to read"}}});
        let tools = [ToolSpec::new(
            READ_OUTPUT,
            "Read on in the output of an earlier tool call that was shortened because it was too long.",
            schema,
        )
        .effect(Effect::Pure)];
        Self {
            manifest: SkillManifest::new("read-output", "Read on in a long tool output"),
            tools: tools.into(),
            journal,
            page,
        }
    }
}

#[async_trait]
impl Skill for ReadOutput {
    fn manifest(&self) -> &SkillManifest {
        &self.manifest
    }

    fn tools(&self) -> Arc<[ToolSpec]> {
        self.tools.clone()
    }

    async fn call(&self, cx: &Cx, call: &ToolCall) -> Result<ToolOutput> {
        let id = call.args.get("id").and_then(Value::as_str).unwrap_or_default();
        let offset = call.args.get("offset").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        // It may be on its way to the disk.
        self.journal.settled().await?;
        let mine = cx.get::<Whose>().ok_or_else(|| no_tool("read_output outside a run"))?;
        let (page, next, rest) =
            outputs::read(self.journal.store(), id, offset.unwrap_or(0), self.page, mine)?;
        Ok(ToolOutput::text(if rest == 0 {
            format!("{page}\n[end of the output]")
        } else {
            format!("{page}\n[{rest} bytes follow; read on at offset {next}]")
        }))
    }
}

fn no_tool(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, "skill.call", format_args!("no tool {name:?} here"))
}
