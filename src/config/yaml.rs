//! YAML text -> [`Node`]: anchors and merge keys resolved, sizes bounded, repeated keys reported.
//!
//! The event stream under serde-saphyr is used instead of its serde side, because every value must keep its
//! text, its quotes and its line.

use super::problem::Problem;
use super::value::{Node, Place, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span};
use std::collections::HashMap;
use std::sync::Arc;

const MAX_DEPTH: usize = 32;
/// Values in a file, aliases counted as often as they are used.
const MAX_VALUES: usize = 100_000;

/// A file's tree and the oddities of its form.
pub(crate) struct Document {
    pub(crate) root: Node,
    pub(crate) warnings: Vec<Problem>,
}

/// Reads one document.
pub(crate) fn parse(source: &Arc<str>, text: &str) -> Result<Document, Problem> {
    let mut builder = Builder::new(source, text);
    let root = builder.document()?;
    match root.value {
        Value::Map(_) => Ok(Document {
            root,
            warnings: builder.warnings,
        }),
        Value::Null => Ok(Document {
            root: Node::empty_map(root.place),
            warnings: builder.warnings,
        }),
        _ => Err(builder.problem(
            root.place.line,
            "is not a mapping of keys such as `scope:` and `name:`",
        )),
    }
}

/// Reads one value of any kind. A key that is repeated is a mistake: one of the two would be lost.
pub(crate) fn parse_any(source: &Arc<str>, text: &str) -> Result<Node, Problem> {
    let mut builder = Builder::new(source, text);
    let root = builder.document()?;
    match builder.warnings.into_iter().next() {
        Some(oddity) => Err(oddity),
        None => Ok(root),
    }
}

type Input<'a> = serde_saphyr::granit_parser::StrInput<'a>;

struct Builder<'a> {
    source: Arc<str>,
    parser: Parser<'a, Input<'a>>,
    anchors: HashMap<usize, Node>,
    values: usize,
    warnings: Vec<Problem>,
}

impl<'a> Builder<'a> {
    fn new(source: &Arc<str>, text: &'a str) -> Self {
        Self {
            source: Arc::clone(source),
            parser: Parser::new_from_str(text),
            anchors: HashMap::new(),
            values: 0,
            warnings: Vec::new(),
        }
    }

    fn document(&mut self) -> Result<Node, Problem> {
        let mut root = None;
        loop {
            let (event, span) = self.event()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(self.problem(line(&span), "holds more than one document; keep one"));
                }
                Event::DocumentStart(..) => {
                    let (event, span) = self.event()?;
                    root = Some(if matches!(event, Event::DocumentEnd) {
                        Node {
                            value: Value::Null,
                            place: self.place(None),
                        }
                    } else {
                        self.node(event, &span, 0)?
                    });
                }
                _ => return Err(self.problem(line(&span), "is not a YAML document")),
            }
        }
        Ok(root.unwrap_or_else(|| Node {
            value: Value::Null,
            place: self.place(None),
        }))
    }

    /// The next event that is not a comment.
    fn event(&mut self) -> Result<(Event<'a>, Span), Problem> {
        loop {
            match self.parser.next_event() {
                None => return Ok((Event::StreamEnd, Span::default())),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(pair)) => return Ok(pair),
                Some(Err(error)) => {
                    let at = error.marker().line();
                    return Err(self.problem(Some(at), &format!("is not YAML: {}", error.info())));
                }
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, Problem> {
        self.values += 1;
        if depth > MAX_DEPTH || self.values > MAX_VALUES {
            return Err(self.problem(
                line(span),
                "is nested too deeply or too large for a configuration",
            ));
        }
        let place = self.place(line(span));
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let quoted_by_tag = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                let node = if style == ScalarStyle::Plain && !quoted_by_tag {
                    Node::plain(&text, place)
                } else {
                    Node {
                        value: Value::Scalar {
                            text: text.into_owned(),
                            plain: false,
                        },
                        place,
                    }
                };
                (node, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.list(place, depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.map(place, depth)?, anchor),
            Event::Alias(id) => {
                let target = self.anchors.get(&id).cloned();
                let node = target
                    .ok_or_else(|| self.problem(line(span), "has an alias (*name) inside its own anchor"))?;
                self.values += size(&node);
                return Ok(Node { place, ..node });
            }
            _ => return Err(self.problem(line(span), "is not a YAML document")),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, place: Place, depth: usize) -> Result<Node, Problem> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.event()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Node {
                    value: Value::List(items),
                    place,
                });
            }
            items.push(self.node(event, &span, depth + 1)?);
        }
    }

    fn map(&mut self, place: Place, depth: usize) -> Result<Node, Problem> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.event()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key_line = line(&span);
            let key = match self.node(event, &span, depth + 1)?.value {
                Value::Scalar { text, .. } => text,
                Value::Null => "null".to_owned(),
                _ => return Err(self.problem(key_line, "has a key that is not a text")),
            };
            let (event, span) = self.event()?;
            let mut value = self.node(event, &span, depth + 1)?;
            // A section is best found by its name, not by its first entry.
            value.place.line = key_line;
            if key == "<<" {
                merged.push(value);
            } else if let Some((_, slot)) = entries.iter_mut().find(|(name, _)| *name == key) {
                *slot = value;
                let message = "is written twice in the same section; the last one counts";
                self.warnings.push(Problem {
                    key,
                    ..self.problem(key_line, message)
                });
            } else {
                entries.push((key, value));
            }
        }
        for source in merged {
            merge(&mut entries, source);
        }
        Ok(Node {
            value: Value::Map(entries),
            place,
        })
    }

    fn place(&self, line: Option<usize>) -> Place {
        Place {
            source: Arc::clone(&self.source),
            line,
        }
    }

    fn problem(&self, line: Option<usize>, message: &str) -> Problem {
        Problem {
            source_name: self.source.to_string(),
            line,
            key: String::new(),
            message: message.to_owned(),
        }
    }
}

/// `<<: *defaults`: what the section has itself wins.
fn merge(entries: &mut Vec<(String, Node)>, source: Node) {
    match source.value {
        Value::Map(theirs) => {
            for (key, node) in theirs {
                if !entries.iter().any(|(name, _)| *name == key) {
                    entries.push((key, node));
                }
            }
        }
        Value::List(items) => items.into_iter().for_each(|item| merge(entries, item)),
        _ => {}
    }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|(_, node)| size(node)).sum::<usize>(),
        _ => 1,
    }
}

fn line(span: &Span) -> Option<usize> {
    Some(span.start.line())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        match parse(&"test".into(), text) {
            Ok(document) => document.root.json().to_string(),
            Err(problem) => problem.to_string(),
        }
    }

    #[test]
    fn block_flow_anchors_and_merges_give_the_same_tree() {
        let expected = r#"{"a":{"b":[1,"on",true,null]}}"#;
        assert_eq!(json("a:\n  b:\n  - 1\n  - 'on'\n  - on\n  -\n"), expected);
        assert_eq!(json(r#"{"a": {"b": [1, "on", true, null]}}"#), expected);
        assert_eq!(
            json("x: &x {b: 1, c: 2}\ny:\n  <<: *x\n  c: 3\n"),
            r#"{"x":{"b":1,"c":2},"y":{"c":3,"b":1}}"#
        );
    }

    #[test]
    fn what_is_not_yaml_is_named_with_its_line() {
        let message = json("scope: a\n  name: b\n");
        assert!(message.starts_with("test:2: is not YAML: "), "{message}");
        assert_eq!(
            json("- a\n"),
            "test:1: is not a mapping of keys such as `scope:` and `name:`"
        );
        assert_eq!(
            json("a: 1\n---\nb: 1\n"),
            "test:2: holds more than one document; keep one"
        );
        assert_eq!(json("# nothing\n"), "{}");
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let previous = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{previous}]\n"));
        }
        assert!(json(&text).contains("too large"), "{}", json(&text));
    }

    #[test]
    fn a_repeated_key_is_reported() {
        let document = parse(&"test".into(), "a: 1\na: 2\n").unwrap();
        assert_eq!(document.root.json().to_string(), r#"{"a":2}"#);
        assert_eq!(
            document.warnings.first().unwrap().to_string(),
            "test:2: a: is written twice in the same section; the last one counts"
        );
    }
}
