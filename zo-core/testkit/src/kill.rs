//! Runs a child process and kills it with SIGKILL: what power loss of a process looks like.
//!
//! A crash test re-runs its own test binary as the child: the child does work and prints a line for each thing that it
//! acknowledged; the parent kills it, reopens what is on disk and checks that every printed line holds.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A child process whose lines are read until it is killed. Dropping it kills it.
#[derive(Debug)]
pub struct Victim {
    child: Child,
}

impl Victim {
    /// Starts this very test binary again, running only the test `test` (its full path), with `env` set.
    pub fn respawn(test: &str, env: &[(&str, String)]) -> Self {
        let me = std::env::current_exe().expect("path of this test binary");
        let mut command = Command::new(me);
        command.args([test, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"]);
        command.envs(env.iter().map(|(k, v)| (*k, v.as_str())));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        Self { child: command.spawn().expect("start the child") }
    }

    /// Lets it live for `time`, kills it with SIGKILL, reaps it, and returns every whole line that it printed.
    pub fn kill_after(mut self, time: Duration) -> Vec<String> {
        std::thread::sleep(time);
        self.kill_and_read()
    }

    /// Reads until a line starts with `mark`, then kills at once and returns every whole line that it printed.
    pub fn kill_at(mut self, mark: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut out = BufReader::new(self.child.stdout.take().expect("piped"));
        let mut line = String::new();
        while out.read_line(&mut line).expect("read the child") > 0 {
            let hit = line.trim_end().ends_with(mark);
            lines.push(std::mem::take(&mut line));
            if hit {
                break;
            }
        }
        self.end();
        while out.read_line(&mut line).expect("read the child") > 0 {
            lines.push(std::mem::take(&mut line));
        }
        whole(lines)
    }

    fn kill_and_read(&mut self) -> Vec<String> {
        self.end();
        let mut out = BufReader::new(self.child.stdout.take().expect("piped"));
        let (mut lines, mut line) = (Vec::new(), String::new());
        while out.read_line(&mut line).expect("read the child") > 0 {
            lines.push(std::mem::take(&mut line));
        }
        whole(lines)
    }

    fn end(&mut self) {
        // The handle is of our own child, so the pid cannot be somebody else's.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.end();
    }
}

/// Drops a last line that was cut and the line ends.
fn whole(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|l| l.ends_with('\n')).map(|l| l.trim_end().to_owned()).collect()
}
