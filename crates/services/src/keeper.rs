//! Cleans up after a service whose owner is gone, however that ended.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, Result};

/// Ends the process named in the file `$2`, then removes the directory `$1`; all of that once stdin
/// is closed, which the end of the owner does too. Says `gone` at the end.
const SCRIPT: &str = r#"
read -r _
pid=$(head -n 1 "$2" 2>/dev/null)
if [ -n "$pid" ]; then
  kill -QUIT "$pid" 2>/dev/null
  kill -CONT "$pid" 2>/dev/null
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.2
  done
  kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"
echo gone
"#;

/// A directory with a process in it. Both go when this is dropped or when the owner's process ends,
/// be it by SIGKILL.
#[derive(Debug)]
pub(crate) struct Keeper {
    directory: PathBuf,
    watch: Child,
    /// Closed to say that all is over.
    alive: Option<ChildStdin>,
}

impl Keeper {
    /// Makes a directory and watches over it and over the process that `pid_file`, a path in it, will
    /// name.
    pub(crate) fn new(prefix: &str, pid_file: &str) -> Result<Self> {
        // Short: the path of a Unix socket has a limit.
        let directory = tempfile::Builder::new().prefix(prefix).tempdir()?.keep();
        let mut watch = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(&directory)
            .arg(directory.join(pid_file))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C ends the test and must not end this.
            .process_group(0)
            .spawn()
            .context("`sh` does not run")?;
        let alive = watch.stdin.take();
        Ok(Self {
            directory,
            watch,
            alive,
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.alive.take());
        let mut said = String::new();
        if let Some(stdout) = &mut self.watch.stdout {
            // Whatever it says, it has ended then.
            stdout.read_to_string(&mut said).ok();
        }
        self.watch.wait().ok();
        if said.trim() != "gone" {
            fs::remove_dir_all(&self.directory).ok();
        }
    }
}
