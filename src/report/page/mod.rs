//! `report.html`: a run or a drill on one page that loads nothing.
//!
//! The page is made from the files in the run's folder: `events.jsonl` and, for a drill, `drill.json`, both
//! masked when they were written. So it can be made again at any time, also for a run that was killed. Charts
//! are SVG made here; there is no script, font or picture to load.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    drill::record::{self, Record},
    error::{Code, Error, Result},
};

mod axis;
mod chart;
mod critical;
mod document;
mod drill;
mod gantt;
mod history;
mod layout;
mod replay;
mod run;
mod terminal;

use self::history::History;

/// The page's name in a run's folder.
const PAGE: &str = "report.html";

const EVENTS: &str = "events.jsonl";

/// A run as it is kept in its folder.
#[derive(Debug)]
pub struct KeptRun {
    /// Its folder's name.
    name: String,
    folder: PathBuf,
    history: History,
    /// The measurements, if it was a drill.
    drill: Option<Record>,
    /// The names of the hosts' logs.
    logs: Vec<String>,
}

impl KeptRun {
    /// Reads what a run has left in `folder`.
    pub fn read(folder: &Path) -> Result<Self> {
        let events = folder.join(EVENTS);
        // If the disk was full, its lines may contain invalid UTF-8.
        let text = fs::read(&events).map_err(|error| unreadable(&events, error))?;
        let drill = folder.join(record::FILE);
        let drill = match fs::read(&drill) {
            // A record of another version is ignored; the run's events are shown anyway.
            Ok(text) => serde_json::from_slice(&text).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unreadable(&drill, error)),
        };
        let name = folder.file_name().unwrap_or(folder.as_os_str());
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            folder: folder.to_owned(),
            history: replay::read(&String::from_utf8_lossy(&text)),
            drill,
            logs: logs(folder).map_err(|error| unreadable(folder, error))?,
        })
    }

    /// The page's text.
    pub fn html(&self) -> String {
        let body = match &self.drill {
            Some(record) => drill::body(self, record),
            None => run::body(self),
        };
        layout::page(self, &body)
    }

    /// Writes the page into the run's folder, for its owner only, and returns its path.
    pub fn write(&self) -> Result<PathBuf> {
        let path = self.folder.join(PAGE);
        let written = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.folder)
            .and_then(|mut file| {
                file.write_all(self.html().as_bytes())?;
                file.persist(&path).map_err(|error| error.error)
            });
        match written {
            Ok(_) => Ok(path),
            Err(error) => {
                let what = format!("cannot write {}", path.display());
                Err(Error::new(Code::LocalFileFailed, what).because(error))
            }
        }
    }

    /// The page's path. The page is written if it is missing or older than its data.
    pub fn page(&self) -> Result<PathBuf> {
        let path = self.folder.join(PAGE);
        let written = modified(&path);
        let sources = [EVENTS, record::FILE].map(|name| modified(&self.folder.join(name)));
        if written.is_some() && sources.into_iter().all(|source| source <= written) {
            return Ok(path);
        }
        self.write()
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|data| data.modified()).ok()
}

fn logs(folder: &Path) -> io::Result<Vec<String>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".log") {
            logs.push(name);
        }
    }
    logs.sort();
    Ok(logs)
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(
        Code::LocalFileFailed,
        format!("cannot read {}", path.display()),
    )
    .because(error)
}

#[cfg(test)]
mod tests;
