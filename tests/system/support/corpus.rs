//! The shared corpus: real events that are not part of the project.

use std::path::PathBuf;

/// The folder of the corpus; `None`, said loudly, where it isn't there. With `CI=true` it must be.
pub fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("INOSEC_CORPUS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    if folder.join("agent_logs.ndjson.zst").exists() {
        return Some(folder);
    }
    let text = format!("NOT TESTED: the corpus is not at {}: set INOSEC_CORPUS", folder.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{text}");
    eprintln!("{text}");
    None
}

/// The lines of a corpus file, byte for byte.
pub fn lines(file: &str) -> Option<Vec<Vec<u8>>> {
    let bytes = std::fs::read(folder()?.join(file)).unwrap();
    let plain = if file.ends_with(".zst") { zstd::decode_all(&bytes[..]).unwrap() } else { bytes };
    let lines = plain.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Some(lines.map(<[u8]>::to_vec).collect())
}
