//! Where the workspace is, its files, and cargo.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's directory.
pub(crate) fn root() -> PathBuf {
    // xtask lies directly below it.
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The cargo that runs this task, in the workspace's directory.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Runs `command` to its end with the terminal as its output; true when it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool, String> {
    let status = command.status().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    Ok(status.success())
}

/// Builds heng and returns the path of the program.
pub(crate) fn build_heng() -> Result<PathBuf, String> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--package", "heng", "--message-format=json"]);
    let built = crate::artifacts::built_by(&mut build)?;
    let program = built.into_iter().find(|artifact| artifact.name == "heng" && !artifact.tests);
    program.map(|artifact| artifact.executable).ok_or_else(|| "cargo built no heng".to_string())
}

/// A file of the workspace: its path from the root, with `/`, and its text.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every text file of the workspace but for what builds leave, sorted by path.
pub(crate) fn files() -> Result<Vec<File>, String> {
    let root = root();
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory);
        let entries =
            entries.map_err(|error| format!("cannot list {}: {error}", directory.display()))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && !LEFT_OUT.contains(&name.as_str()) {
                directories.push(path);
            } else if kind.is_file()
                && let Ok(text) = fs::read_to_string(&path)
            {
                let path = path.strip_prefix(&root).unwrap_or(&path);
                found.push(File { path: path.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// Directories that hold no source.
const LEFT_OUT: &[&str] = &["target", ".git", "ntests-out", "corpus", "artifacts"];
