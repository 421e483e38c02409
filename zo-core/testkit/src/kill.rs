//! Runs a child process and kills it: what power loss of a process looks like.
//!
//! A crash test re-runs its own test binary as the child: the child does work and prints a line for each thing that it
//! acknowledged; the parent kills it, or it [dies](die) by itself at a point that was chosen, and the parent reopens what is on
//! disk and checks that every printed line holds.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

/// A child process whose lines are read as it prints them. Dropping it kills it.
#[derive(Debug)]
pub struct Victim {
    child: Child,
    lines: Receiver<String>,
}

/// What is left of a child.
#[derive(Debug)]
pub struct Remains {
    /// Every whole line that it printed.
    pub lines: Vec<String>,
    /// How it ended, if it did by itself; `None` when it was killed.
    pub ended: Option<ExitStatus>,
}

impl Victim {
    /// Starts this very test binary again, running only the test `test` (its full path), with `env` set.
    pub fn respawn(test: &str, env: &[(&str, String)]) -> Self {
        let me = std::env::current_exe().expect("path of this test binary");
        let mut command = Command::new(me);
        command.args([test, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"]);
        command.envs(env.iter().map(|(k, v)| (*k, v.as_str())));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("start the child");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        // Read all along: a pipe that is full would hold the child up.
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while out.read_line(&mut line).expect("read the child") > 0 {
                // A last line that was cut was not said.
                if line.ends_with('\n') && tell.send(line.trim_end().to_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self { child, lines }
    }

    /// Lets it live for `time`, kills it with SIGKILL, reaps it, and returns every whole line that it printed.
    pub fn kill_after(mut self, time: Duration) -> Vec<String> {
        std::thread::sleep(time);
        self.end();
        self.lines.iter().collect()
    }

    /// Reads until a line ends with `mark`, then kills at once and returns every whole line that it printed.
    pub fn kill_at(mut self, mark: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for line in &self.lines {
            let hit = line.ends_with(mark);
            lines.push(line);
            if hit {
                break;
            }
        }
        self.end();
        lines.extend(&self.lines);
        lines
    }

    /// Waits for its end, for `time` at most; then it is killed.
    pub fn wait(mut self, time: Duration) -> Remains {
        let until = Instant::now() + time;
        let mut lines = Vec::new();
        let ended = loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => {
                    break Some(self.child.wait().expect("reap the child"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    // It may have ended in the meantime.
                    let ended = self.child.try_wait().expect("ask after the child");
                    self.end();
                    break ended;
                }
            }
        };
        lines.extend(&self.lines);
        Remains { lines, ended }
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

/// In the child: ends this process at once. Nothing is unwound, dropped, flushed or told to anybody; all threads stop where they
/// are, as with SIGKILL.
pub fn die() -> ! {
    std::process::abort()
}
