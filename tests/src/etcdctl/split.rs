//! One line of a script, split into what to run and how.

use anyhow::{Context as _, Result, bail};

/// One command of a script.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// The name under which the granted lease is kept.
    pub(super) keep_lease: Option<String>,
    /// Kill the command when it has printed this.
    pub(super) until: Option<String>,
    /// etcdctl's arguments.
    pub(super) args: Vec<String>,
    /// Its standard input.
    pub(super) stdin: Option<String>,
}

pub(super) fn step(line: &str) -> Result<Step> {
    let mut words = words(line)?.into_iter().peekable();
    let mut step = Step::default();
    if let Some(Word::Plain(first)) = words.peek()
        && let Some(name) = first.strip_prefix('$')
    {
        step.keep_lease = Some(name.to_owned());
        words.next();
        let equals = words.next().map(Word::text);
        equals
            .filter(|word| word == "=")
            .context("`=` after the lease's name")?;
    }
    if words.peek() == Some(&Word::Plain("until".to_owned())) {
        words.next();
        step.until = Some(words.next().context("a text after `until`")?.text());
    }
    while let Some(word) = words.next() {
        if word == Word::Plain("<".to_owned()) {
            step.stdin = Some(words.next().context("a text after `<`")?.text());
        } else {
            step.args.push(word.text());
        }
    }
    Ok(step)
}

#[derive(Debug, PartialEq, Eq)]
enum Word {
    Plain(String),
    Quoted(String),
}

impl Word {
    fn text(self) -> String {
        match self {
            Word::Plain(text) | Word::Quoted(text) => text,
        }
    }
}

fn words(line: &str) -> Result<Vec<Word>> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(&first) = chars.peek() {
        if first.is_whitespace() {
            chars.next();
            continue;
        }
        let (mut text, mut quoted) = (String::new(), false);
        while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
            match c {
                '"' | '\'' => {
                    quoted = true;
                    text.push_str(&until_quote(&mut chars, c)?);
                }
                c => text.push(c),
            }
        }
        words.push(if quoted {
            Word::Quoted(text)
        } else {
            Word::Plain(text)
        });
    }
    Ok(words)
}

/// The rest of a quoted text. Inside `"…"` a backslash escapes, inside `'…'` nothing does.
fn until_quote(chars: &mut impl Iterator<Item = char>, quote: char) -> Result<String> {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok(text),
            '\\' if quote == '"' => match chars.next().context("something after a backslash")? {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                '0' => text.push('\0'),
                escaped => text.push(escaped),
            },
            c => text.push(c),
        }
    }
    bail!("a quote is not closed: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_as_a_shell_would() {
        let step = step(r#"$l = until "a b" watch 'x"y' --k="1 2" "" < "in\nput""#).unwrap();
        assert_eq!(step.keep_lease.as_deref(), Some("l"));
        assert_eq!(step.until.as_deref(), Some("a b"));
        assert_eq!(step.args, ["watch", "x\"y", "--k=1 2", ""]);
        assert_eq!(step.stdin.as_deref(), Some("in\nput"));
    }
}
