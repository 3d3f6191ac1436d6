//! COPY and MOVE: where they lead, and what may be overwritten there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use http::settings::Alias;
use http::{Exchange, Verdict};
use session::log::{Bytes, Level};
use session::text::Span;
use system::errno::Errno;
use wire::http1::{Known, Method, target};

use super::files::{self, Failed};
use super::{Depth, is_folder};

/// Does what the request asks for.
///
/// # Errors
/// The status to answer with; the reason is logged.
pub(super) fn copy_or_move(x: &mut Exchange, folder_mode: u32) -> Result<Verdict, u16> {
    let field = x.request.headers.value(Known::Destination);
    let field = field.ok_or_else(|| {
        x.log_error(Level::Error, format_args!("client sent no \"Destination\" header"));
        400u16
    })?;
    let uri = destination(x, field)?;
    check_depth(x)?;
    let overwrite = overwrites(x)?;
    let source = path_of(x, x.request.uri);
    let target = path_of(x, uri);
    check_paths(x, field, &source, &target)?;
    let replaced = match fs::symlink_metadata(&target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failed::of("lstat()", &target)(error).status(x, 404)),
        Ok(about) if about.is_dir() && !is_folder(x) => {
            return Err(not_to_collection(x, field, 409));
        }
        Ok(_) if !overwrite => {
            let (shown, errno) = (target.display(), Errno(17 /* EEXIST */));
            x.log_error(Level::Error, format_args!("\"{shown}\" could not be created ({errno})"));
            return Err(412);
        }
        Ok(about) => Some(about.is_dir()),
    };
    let about = fs::symlink_metadata(&source);
    let about = about.map_err(|error| Failed::of("lstat()", &source)(error).status(x, 404))?;
    if about.is_dir() && !is_folder(x) {
        let shown = Bytes(x.text(x.request.uri));
        x.log_error(Level::Error, format_args!("\"{shown}\" is collection"));
        return Err(400);
    }
    if !about.is_dir() {
        let done = match x.request.method {
            Method::Move => files::rename(&source, &target, Some(folder_mode)),
            _ => files::copy(&source, &target),
        };
        return done.map(|()| Verdict::Status(204)).map_err(|failed| failed.crit(x));
    }
    if let Some(is_folder) = replaced {
        files::remove(x, &target, is_folder).map_err(|failed| failed.status(x, 404))?;
    }
    if x.request.method == Method::Move && fs::rename(&source, &target).is_ok() {
        return Ok(Verdict::Status(201));
    }
    files::copy_folder(x, &source, &target).map_err(|failed| failed.status(x, 404))?;
    if x.request.method == Method::Move {
        files::remove(x, &source, true).map_err(|failed| failed.status(x, 404))?;
    }
    Ok(Verdict::Status(201))
}

/// The path in the field Destination (RFC 4918 section 10.3): its own, or behind the host that the
/// request is for.
fn destination(x: &mut Exchange, field: Span) -> Result<Span, u16> {
    let text = x.text(field).to_vec();
    let invalid = |x: &Exchange| {
        let shown = Bytes(&text);
        let message = format_args!("client sent invalid \"Destination\" header: \"{shown}\"");
        x.log_error(Level::Error, message);
        400u16
    };
    let path = match text.first() {
        Some(b'/') => &text[..],
        _ => {
            if x.request.host.is_empty() {
                x.log_error(Level::Error, format_args!("client sent no \"Host\" header"));
                return Err(400);
            }
            let scheme: &[u8] = b"http://";
            let secure: &[u8] = b"https://";
            let rest = text.strip_prefix(scheme).or_else(|| text.strip_prefix(secure));
            let rest = rest.ok_or_else(|| invalid(x))?;
            let Some(rest) = rest.strip_prefix(x.text(x.request.host)) else {
                let shown = Bytes(&text);
                let message = format_args!(
                    "\"Destination\" URI \"{shown}\" is handled by different repository than the \
                     source URI"
                );
                x.log_error(Level::Error, message);
                return Err(400);
            };
            let at = rest.iter().position(|byte| *byte == b'/').ok_or_else(|| invalid(x))?;
            &rest[at..]
        }
    };
    let mut decoded = Vec::new();
    target::split_internal(path, &mut decoded).ok_or_else(|| invalid(x))?;
    if is_folder(x) != decoded.ends_with(b"/") {
        let (uri, shown) = (Bytes(x.text(x.request.uri)), Bytes(&text));
        let message = format_args!(
            "both URI \"{uri}\" and \"Destination\" URI \"{shown}\" should be either collections \
             or non-collections"
        );
        x.log_error(Level::Error, message);
        return Err(409);
    }
    // What an alias stands for must be what the path begins with.
    let is_outside = match x.location.settings.alias {
        Some(Alias::Prefix(length)) => decoded.get(..length) != x.text(x.request.uri).get(..length),
        _ => false,
    };
    if is_outside {
        return Err(invalid(x));
    }
    Ok(x.arena.push(&decoded))
}

fn check_depth(x: &Exchange) -> Result<(), u16> {
    let depth = Depth::of(x);
    let wanted = match x.request.method {
        _ if matches!(depth, Depth::None | Depth::Infinity) => return Ok(()),
        Method::Copy if depth == Depth::Zero => return Ok(()),
        Method::Copy => "0 or infinity",
        _ => "infinity",
    };
    x.log_error(Level::Error, format_args!("\"Depth\" header must be {wanted}"));
    Err(400)
}

/// The field Overwrite (RFC 4918 section 10.6).
fn overwrites(x: &Exchange) -> Result<bool, u16> {
    let Some(value) = x.request.headers.value(Known::Overwrite) else { return Ok(true) };
    match x.text(value) {
        b"T" | b"t" => Ok(true),
        b"F" | b"f" => Ok(false),
        other => {
            let shown = Bytes(other);
            let message = format_args!("client sent invalid \"Overwrite\" header: \"{shown}\"");
            x.log_error(Level::Error, message);
            Err(400)
        }
    }
}

/// The file or folder that a path of the location names, without a slash at its end.
fn path_of(x: &mut Exchange, uri: Span) -> PathBuf {
    let path = http::files::path_of(x, uri);
    let text = x.text(path);
    let mut merged: Vec<u8> = Vec::with_capacity(text.len());
    for byte in text {
        if *byte != b'/' || merged.last() != Some(&b'/') {
            merged.push(*byte);
        }
    }
    if merged.len() > 1 && merged.ends_with(b"/") {
        merged.pop();
    }
    files::path(&merged)
}

/// Nothing goes to itself, and no folder into one of its own or into its place.
fn check_paths(x: &Exchange, field: Span, source: &Path, target: &Path) -> Result<(), u16> {
    if source == target {
        let (uri, shown) = (Bytes(x.text(x.request.uri)), Bytes(x.text(field)));
        let message = format_args!(
            "both URI \"{uri}\" and \"Destination\" URI \"{shown}\" point to the same location"
        );
        x.log_error(Level::Error, message);
        return Err(403);
    }
    if is_folder(x) && (source.starts_with(target) || target.starts_with(source)) {
        return Err(not_to_collection(x, field, 403));
    }
    Ok(())
}

fn not_to_collection(x: &Exchange, field: Span, status: u16) -> u16 {
    let (uri, method) = (Bytes(x.text(x.request.uri)), Bytes(x.text(x.request.method_text)));
    let shown = Bytes(x.text(field));
    let message = format_args!("\"{uri}\" could not be {method}ed to collection \"{shown}\"");
    x.log_error(Level::Error, message);
    status
}
