//! What there is to permit: the 19 scopes of Zo, one more for each connected app, and the presets made of them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

macro_rules! scopes {
    ($($(#[$meta:meta])* $name:ident = $text:literal,)*) => {
        $($(#[$meta])* pub const $name: &str = $text;)*
        /// All of them. Others may be used; nothing but their names is known of them.
        pub const ALL: &[&str] = &[$($name,)*];
    };
}

scopes! {
    /// Read files and search among them.
    FILES_READ = "files:read",
    /// Create, change and delete files.
    FILES_WRITE = "files:write",
    /// Run commands.
    SHELL_EXECUTE = "shell:execute",
    /// Search the web.
    WEB_SEARCH = "web:search",
    /// Open web pages and act on them.
    WEB_BROWSE = "web:browse",
    /// Make images, sounds and videos.
    MEDIA_GENERATE = "media:generate",
    /// Turn sounds and videos into text.
    MEDIA_TRANSCRIBE = "media:transcribe",
    /// Send mails.
    COMMS_EMAIL = "comms:email",
    /// Send text messages.
    COMMS_SMS = "comms:sms",
    /// Send messages on Telegram.
    COMMS_TELEGRAM = "comms:telegram",
    /// Send messages on Discord.
    COMMS_DISCORD = "comms:discord",
    /// Send messages on Slack.
    COMMS_SLACK = "comms:slack",
    /// See the agent's settings.
    SETTINGS_READ = "settings:read",
    /// Change the agent's settings: personas, rules, automations.
    SETTINGS_MANAGE = "settings:manage",
    /// See what is hosted.
    HOSTING_READ = "hosting:read",
    /// Publish, change and stop what is hosted.
    HOSTING_MANAGE = "hosting:manage",
    /// See products, orders and payments.
    COMMERCE_READ = "commerce:read",
    /// Sell, buy and pay.
    COMMERCE_MANAGE = "commerce:manage",
    /// Use the person's own device.
    DEVICE_USE = "device:use",
}

/// The scope of a connected app: `integrations:<app>`.
pub fn integration(app: &str) -> String {
    format!("integrations:{app}")
}

/// What a scope brings along: who may write or manage may read.
pub(super) fn implied(scope: &str) -> Option<String> {
    let (what, how) = scope.rsplit_once(':')?;
    matches!(how, "write" | "manage").then(|| format!("{what}:read"))
}

/// Does holding `held` give `needed`?
pub(super) fn grants(held: &BTreeSet<String>, needed: &str) -> bool {
    held.contains(needed)
        || needed.strip_suffix(":read").is_some_and(|what| {
            held.contains(&format!("{what}:write")) || held.contains(&format!("{what}:manage"))
        })
}

/// The usual sets of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Preset {
    /// Everything.
    AllAccess,
    /// Files, the web and media, and a look at settings, hosting and commerce. No commands, no messages, no apps.
    Workspace,
    /// Read files, search the web, see the settings: changes nothing.
    ReadOnly,
    /// Conversation, without any tool.
    ChatOnly,
}

impl Preset {
    /// Its scopes; `None` is all that there are.
    pub fn scopes(self) -> Option<&'static [&'static str]> {
        match self {
            Self::AllAccess => None,
            Self::Workspace => Some(&[
                FILES_READ,
                FILES_WRITE,
                WEB_SEARCH,
                WEB_BROWSE,
                MEDIA_GENERATE,
                MEDIA_TRANSCRIBE,
                SETTINGS_READ,
                HOSTING_READ,
                COMMERCE_READ,
            ]),
            Self::ReadOnly => Some(&[FILES_READ, WEB_SEARCH, SETTINGS_READ]),
            Self::ChatOnly => Some(&[]),
        }
    }
}
