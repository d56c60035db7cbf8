//! Reads the XML of a store's answers, which is small and plain: elements and text.

/// How deep elements may be in each other.
const DEEPEST: usize = 32;

/// An element, without its attributes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

impl Element {
    /// `None` if the text is no XML, or has what no answer of a store has, such as a document type.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // The first one is around the document's own element.
        let mut open = vec![Self::default()];
        let mut rest = text.trim_start_matches('\u{feff}');
        while let Some(at) = rest.find('<') {
            let last = open.last_mut()?;
            last.text.push_str(&resolved(&rest[..at])?);
            rest = &rest[at + 1..];
            if let Some(data) = rest.strip_prefix("![CDATA[") {
                let (data, after) = data.split_once("]]>")?;
                last.text.push_str(data);
                rest = after;
                continue;
            }
            if let Some(comment) = rest.strip_prefix("!--") {
                rest = comment.split_once("-->")?.1;
                continue;
            }
            if let Some(declaration) = rest.strip_prefix('?') {
                rest = declaration.split_once("?>")?.1;
                continue;
            }
            if rest.starts_with('!') || open.len() > DEEPEST {
                return None;
            }
            let end = end_of_tag(rest)?;
            let tag = &rest[..end];
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                let closed = open.pop()?;
                if closed.name != local(name) {
                    return None;
                }
                open.last_mut()?.children.push(closed);
                continue;
            }
            let element = Self {
                name: local(tag),
                ..Self::default()
            };
            if element.name.is_empty() {
                return None;
            }
            match tag.ends_with('/') {
                true => open.last_mut()?.children.push(element),
                false => open.push(element),
            }
        }
        let mut around = open.pop()?;
        let is_whole = open.is_empty() && around.children.len() == 1 && rest.trim().is_empty();
        if is_whole {
            around.children.pop()
        } else {
            None
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The first child of this name.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|it| it.name == name)
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |it| it.name == name)
    }

    pub(super) fn text(&self) -> &str {
        self.text.trim()
    }

    /// The text of the first child of this name.
    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(Self::text)
    }
}

/// Where the tag ends: at the first `>` that is not in a value.
fn end_of_tag(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (None, '>') => return Some(at),
            (None, '"' | '\'') => quote = Some(letter),
            (Some(begun), letter) if begun == letter => quote = None,
            _ => {}
        }
    }
    None
}

/// The name in a tag, without its namespace.
fn local(tag: &str) -> String {
    let name = tag
        .split(|c: char| c.is_whitespace() || c == '/')
        .next()
        .unwrap_or_default();
    name.rsplit(':').next().unwrap_or_default().to_owned()
}

/// The text with the characters that stand escaped in it.
fn resolved(text: &str) -> Option<String> {
    let mut parts = text.split('&');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (name, after) = part.split_once(';')?;
        out.push(match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = name.strip_prefix('#')?;
                let code = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)?
            }
        });
        out.push_str(after);
    }
    Some(out)
}

/// The text as it stands in XML.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- x -->\n\
            <ListVersionsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n  <Name>b</Name>\n  \
            <a:Version><Key>a&amp;b &#x41;&#66;</Key><VersionId>null</VersionId></a:Version>\n  \
            <Version x='1>2'><Key><![CDATA[<c>]]></Key></Version><Empty/></ListVersionsResult>\n";
        let read = Element::parse(text).unwrap();
        assert_eq!(read.name(), "ListVersionsResult");
        let keys: Vec<_> = read.all("Version").map(|it| it.text_of("Key")).collect();
        assert_eq!(keys, [Some("a&b AB"), Some("<c>")]);
        assert_eq!(read.text_of("Empty"), Some(""));
        assert_eq!(read.text_of("None"), None);
        assert_eq!(escaped("a&b<c>"), "a&amp;b&lt;c&gt;");
    }

    #[test]
    fn what_is_no_answer_is_no_answer() {
        for text in [
            "",
            "not XML",
            "<a>",
            "<a></b>",
            "</a>",
            "<a/><b/>",
            "<a>&unknown;</a>",
            "<a>&#xd800;</a>",
            "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
            "<a b='>",
            "<a/> more",
            "< a/>",
        ] {
            assert_eq!(Element::parse(text), None, "{text}");
        }
        let deep = "<a>".repeat(100_000) + &"</a>".repeat(100_000);
        assert_eq!(Element::parse(&deep), None);
    }
}
