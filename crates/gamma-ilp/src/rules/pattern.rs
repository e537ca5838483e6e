//! Patterns for module names.

use std::{fmt, str::FromStr};

use gamma_core::ModuleName;

/// A set of module names: a glob such as `*.down_proj`, or `re:` and a regular expression.
///
/// Both must match the whole name. In a glob, `*` stands for any text, dots included, `?` for one
/// character and `[0-3]` for one of a range; all other characters stand for themselves.
///
/// ```
/// use gamma_core::ModuleName;
/// use gamma_ilp::Pattern;
///
/// let name = ModuleName::new("model.layers.12.mlp.down_proj");
/// for text in ["*.down_proj", "model.layers.1?.*", r"re:.*\.(9|1\d)\..*"] {
///     assert!(text.parse::<Pattern>()?.matches(&name), "{text}");
/// }
/// assert!(!"down_proj".parse::<Pattern>()?.matches(&name));
/// # Ok::<(), gamma_ilp::RuleError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    Glob(glob::Pattern),
    Regex(regex_lite::Regex),
}

impl Pattern {
    /// Whether the pattern matches the whole of `name`.
    #[must_use]
    pub fn matches(&self, name: &ModuleName) -> bool {
        match &self.matcher {
            Matcher::Glob(glob) => glob.matches(name.as_str()),
            Matcher::Regex(regex) => regex.is_match(name.as_str()),
        }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Pattern {
    type Err = super::RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |reason: String| super::RuleError::Pattern { pattern: text.to_owned(), reason };
        if text.is_empty() || text.contains(char::is_whitespace) {
            return Err(refuse("a pattern is not empty and has no spaces".to_owned()));
        }
        let matcher = match text.strip_prefix("re:") {
            Some(regex) => {
                // By itself first: `a)|(?:b` would break out of the group.
                regex_lite::Regex::new(regex).map_err(|error| refuse(error.to_string()))?;
                let whole = format!("^(?:{regex})$");
                Matcher::Regex(regex_lite::Regex::new(&whole).map_err(|error| refuse(error.to_string()))?)
            }
            None => Matcher::Glob(glob::Pattern::new(text).map_err(|error| refuse(error.msg.to_owned()))?),
        };
        Ok(Self { text: text.to_owned(), matcher })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let matches =
            |pattern: &str, name: &str| pattern.parse::<Pattern>().unwrap().matches(&ModuleName::new(name));
        for (pattern, name, expected) in [
            ("*", "a.b", true),
            ("a.*", "a.b.c", true),
            ("a.*", "ba.b", false),
            ("a.?", "a.b", true),
            ("a.[0-3].*", "a.4.c", false),
            ("re:a|b", "ab", false),
            ("re:a|b", "b", true),
            ("re:.*b.*", "abc", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused_with_the_reason() {
        for text in ["", "a b", "a[", "re:(", "re:*"] {
            let error = text.parse::<Pattern>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
