//! The `[wsredis]` section of an ini file.
//!
//! The file may be uWSGI's own: other sections are skipped unread, whatever they hold. Inside ours
//! everything must be understood; an error names the file and the line. No value is ever repeated
//! whole in an error.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Config;
use crate::error::{Error, Kind, Result};

/// The longest line of our section. No value needs more, and a longer one is a file of another
/// kind.
const MAX_LINE: usize = 64 * 1024;

/// The longest file: bounds the memory if the path is a device.
const MAX_FILE: u64 = 16 * 1024 * 1024;

const SECTION: &[u8] = b"wsredis";

/// Reads the file into `config`.
pub(super) fn load(config: &mut Config, path: &Path) -> Result<()> {
    let name = path.display();
    let wrong = |text: String| Error::new(Kind::Config, text);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| wrong(format!("{name}: {error}")))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(wrong(format!("{name}: longer than 16m")));
    }
    parse(config, &name.to_string(), &bytes).map_err(wrong)
}

/// Reads the text of the file called `name` into `config`.
fn parse(config: &mut Config, name: &str, bytes: &[u8]) -> std::result::Result<(), String> {
    // Some editors begin UTF-8 files with a byte order mark.
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut first_section = None;
    let mut inside = false;
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let place = |why: &str| format!("{name}:{number}: {why}");
        let line = line.trim_ascii();
        if line.first() != Some(&b'[') {
            if inside && let Some((key, value)) = pair(line).map_err(place)? {
                let whence = format!("at {name}:{number}");
                config.set_from(key, value, &whence).map_err(|why| place(&why))?;
            }
            continue;
        }
        inside = is_ours(line).map_err(place)?;
        if inside && let Some(first) = first_section.replace(number) {
            return Err(place(&format!(
                "a second [wsredis] section; the first is in line {first}"
            )));
        }
    }
    match first_section {
        Some(_) => Ok(()),
        None => Err(format!("{name}: there is no [wsredis] section in it")),
    }
}

/// Does this line, which begins with `[`, begin our section? One that nearly does is an error:
/// skipping it would run the site on defaults.
fn is_ours(line: &[u8]) -> std::result::Result<bool, &'static str> {
    let header = &line[1..];
    let (section, rest) = match header.iter().position(|byte| *byte == b']') {
        Some(end) => (&header[..end], Some(&header[end + 1..])),
        None => (header, None),
    };
    if section.trim_ascii() != SECTION {
        return Ok(false);
    }
    match rest {
        Some([]) => Ok(true),
        Some(_) => Err("something stands behind [wsredis] in its line"),
        None => Err("[wsredis lacks its ]"),
    }
}

/// The key and the value of a line of our section; `None` for a comment or an empty line.
fn pair(line: &[u8]) -> std::result::Result<Option<(&str, &str)>, &'static str> {
    if line.len() > MAX_LINE {
        return Err("a line is longer than 64k");
    }
    if line.contains(&0) {
        return Err("a zero byte");
    }
    let Ok(line) = std::str::from_utf8(line) else {
        return Err("a byte that is not UTF-8");
    };
    if line.is_empty() || line.starts_with([';', '#']) {
        return Ok(None);
    }
    let Some((key, value)) = line.split_once('=') else {
        return Err("not a key = value, a comment (; or # at the line's start) or a [section]");
    };
    // uWSGI replaces them in its own section only; here they would silently become part of the
    // value.
    if value.contains("$(") || value.contains("%(") {
        return Err(
            "$(…) and %(…) are not replaced in [wsredis]; write it as wsredis-KEY = … in [uwsgi]",
        );
    }
    Ok(Some((key.trim(), value.trim())))
}
