//! As much of XML as EC2's answers use.

/// An element; its text is unparsed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Element {
    /// The tag, with attributes.
    head: String,
    pub(crate) text: String,
    pub(crate) children: Vec<Element>,
}

impl Element {
    pub(crate) fn parse(xml: &str) -> Self {
        let mut open = vec![Self::default()];
        let mut rest = xml;
        while let Some(start) = rest.find('<') {
            let end = start + rest[start..].find('>').expect("a tag ends");
            let (text, tag) = (&rest[..start], &rest[start + 1..end]);
            rest = &rest[end + 1..];
            let inner = open.last_mut().unwrap();
            if inner.children.is_empty() {
                text.trim().clone_into(&mut inner.text);
            }
            if tag.starts_with(['?', '!']) {
                continue;
            }
            if tag.starts_with('/') {
                let done = open.pop().unwrap();
                open.last_mut().unwrap().children.push(done);
            } else if let Some(tag) = tag.strip_suffix('/') {
                let children = &mut open.last_mut().unwrap().children;
                children.push(Self::new(tag.trim(), ""));
            } else {
                open.push(Self::new(tag, ""));
            }
        }
        let mut outer = open.swap_remove(0);
        outer.children.pop().expect("there is a root")
    }

    pub(crate) fn new(head: &str, text: &str) -> Self {
        Self {
            head: head.to_owned(),
            text: text.to_owned(),
            children: Vec::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.head.split_whitespace().next().unwrap_or_default()
    }

    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|it| it.name() == name)
    }

    pub(crate) fn child_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.children.iter_mut().find(|it| it.name() == name)
    }

    pub(crate) fn word(&self, name: &str) -> &str {
        self.child(name).map_or("", |it| &it.text)
    }

    /// All elements with that name, at any depth.
    pub(crate) fn all(&self, name: &str) -> Vec<&Self> {
        let deeper = self.children.iter().flat_map(|it| it.all(name));
        let here = (self.name() == name).then_some(self);
        here.into_iter().chain(deeper).collect()
    }

    /// The outermost element with that name.
    pub(crate) fn each_mut(&mut self, name: &str, change: &mut impl FnMut(&mut Self)) {
        if self.name() == name {
            return change(self);
        }
        for child in &mut self.children {
            child.each_mut(name, change);
        }
    }

    pub(crate) fn write(&self) -> String {
        let inner: String = self.children.iter().map(Self::write).collect();
        format!("<{}>{}{inner}</{}>", self.head, self.text, self.name())
    }
}
