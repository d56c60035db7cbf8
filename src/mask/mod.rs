//! Hides secrets in text, in every form in which they may appear.
//!
//! A secret has a type of its own and prints as `***`. Masking is the second line of defence: for output of
//! hosts, and for files, which contain secrets as plain text.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::{
    cluster::Secrets,
    contract::{REST_USER, STATS_USER},
    render,
    secret::{MASK, Secret},
};

mod places;

/// Shorter values would mask half of every line.
const SHORTEST: usize = 4;

/// The values to hide. Clones share them.
#[derive(Clone, Default)]
pub struct Masks(Arc<RwLock<Vec<String>>>);

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masks")
    }
}

impl Masks {
    /// Adds secrets. They are masked from now on.
    pub fn add<'a>(&self, secrets: impl IntoIterator<Item = &'a Secret>) {
        self.learn(secrets, SHORTEST);
    }

    fn learn<'a>(&self, secrets: impl IntoIterator<Item = &'a Secret>, shortest: usize) {
        let mut values = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut all: BTreeSet<String> = values.drain(..).collect();
        for secret in secrets {
            let forms = forms(secret.expose());
            all.extend(forms.filter(|form| form.chars().count() >= shortest));
        }
        values.extend(all);
        // Longer secrets come first, because a secret may contain a shorter one.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    /// Replaces every secret in `text` by `***`.
    pub(crate) fn replace<'a>(&self, text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
        let values = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut text = text.into();
        for value in values.iter() {
            if text.contains(value.as_str()) {
                text = Cow::Owned(text.replace(value.as_str(), MASK));
            }
        }
        text
    }
}

/// Masks a file: this cluster's secrets, and every value in a place where a secret belongs.
///
/// Masking by place is for files that are already on a host, with passwords that are not known here. Both sides
/// of a diff must be masked this way, so that they look alike if only a secret differs.
pub fn file(text: &str, secrets: &Secrets) -> String {
    let masks = Masks::default();
    // In a file, short passwords are masked too: a file has few lines, and all of them are shown.
    masks.learn(secrets.values(), 1);
    places::mask(&masks.replace(text))
}

/// The forms in which a value appears in text: as it is, quoted for JSON, SQL, the shell and each file format,
/// and in HTTP's basic authentication.
///
/// Output comes line by line, so each line of a PEM key is a value of its own.
fn forms(secret: &str) -> impl Iterator<Item = String> {
    let json = Value::from(secret).to_string();
    let quoted = [
        secret.to_owned(),
        json[1..json.len() - 1].to_owned(),
        secret.replace('\'', "''"),
        secret.replace('\'', r"'\''"),
    ];
    let logins =
        [REST_USER, STATS_USER].map(|user| BASE64_STANDARD.encode(format!("{user}:{secret}")));
    let lines: Vec<String> = if secret.trim().contains('\n') {
        secret
            .lines()
            .map(str::trim)
            .filter(|line| line.len() >= 16 && !line.starts_with("-----"))
            .map(str::to_owned)
            .collect()
    } else {
        Vec::new()
    };
    let files = render::written_forms(secret).into_iter();
    quoted.into_iter().chain(logins).chain(lines).chain(files)
}

#[cfg(test)]
mod tests;
