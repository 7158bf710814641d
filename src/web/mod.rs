//! The files that the server has in it: the JavaScript client, and the console that uses it.
//!
//! Owns what they are and what a browser has to be told about them; knows nothing of who may have
//! them. Main type: [`File`]. Invariant: the console loads nothing but files of this table.

/// A file, and what goes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct File {
    /// Where it is.
    pub path: &'static str,
    /// Whether it is a part of the console, and not for everybody.
    pub is_console: bool,
    /// Its media type.
    pub content_type: &'static str,
    /// Further fields of the response.
    pub fields: &'static [(&'static str, &'static str)],
    /// What is in it, without comments and indentation: nobody reads them here.
    pub text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// A new server may have new files, and browsers must not guess what they are.
const NO_CACHE: (&str, &str) = ("Cache-Control", "no-cache");
const NO_SNIFF: (&str, &str) = ("X-Content-Type-Options", "nosniff");

/// No other site may use the file.
const SAME_ORIGIN: (&str, &str) = ("Cross-Origin-Resource-Policy", "same-origin");

/// What the console may do: run, and look like, the files beside it, and talk to its own server. No
/// inline script or style, no form that leaves the page, no frame around it, nothing made of text.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// The text of a file as it is served.
macro_rules! served {
    ($name:literal) => {{
        const TEXT: &[u8] = include_bytes!($name);
        const LENGTH: usize = strip(TEXT, &mut []);
        const BYTES: [u8; LENGTH] = {
            let mut bytes = [0; LENGTH];
            strip(TEXT, &mut bytes);
            bytes
        };
        match std::str::from_utf8(&BYTES) {
            Ok(text) => text,
            Err(_) => panic!("it is UTF-8"),
        }
    }};
}

/// Writes `text` without blank lines, indentation, and the lines of comments, as far as there is room; returns how many
/// bytes that takes. A comment begins with a line of its own, and what begins with `/*` ends with one.
const fn strip(text: &[u8], into: &mut [u8]) -> usize {
    let (mut at, mut length, mut is_comment) = (0, 0, false);
    while at < text.len() {
        while at < text.len() && text[at] == b' ' {
            at += 1;
        }
        let start = at;
        while at < text.len() && text[at] != b'\n' {
            at += 1;
        }
        let is_long = at - start >= 2;
        is_comment = is_comment || is_long && text[start] == b'/' && text[start + 1] == b'*';
        let is_kept = at > start
            && !is_comment
            && !(is_long && text[start] == b'/' && text[start + 1] == b'/');
        if is_comment && is_long && text[at - 2] == b'*' && text[at - 1] == b'/' {
            is_comment = false;
        }
        // With the end of the line.
        at += 1;
        let mut from = start;
        while is_kept && from < at && from < text.len() {
            if length < into.len() {
                into[length] = text[from];
            }
            length += 1;
            from += 1;
        }
    }
    length
}

/// A script of the console.
const fn script(path: &'static str, text: &'static str) -> File {
    File {
        path,
        is_console: true,
        content_type: JAVASCRIPT,
        fields: &[NO_CACHE, NO_SNIFF, SAME_ORIGIN],
        text,
    }
}

const FILES: &[File] = &[
    File {
        path: "/",
        is_console: true,
        content_type: HTML,
        fields: &[
            NO_CACHE,
            NO_SNIFF,
            SAME_ORIGIN,
            ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Frame-Options", "DENY"),
        ],
        text: served!("console.html"),
    },
    File {
        path: "/console.css",
        is_console: true,
        content_type: CSS,
        fields: &[NO_CACHE, NO_SNIFF, SAME_ORIGIN],
        text: served!("console.css"),
    },
    script("/console.js", served!("console.js")),
    script("/console-page.js", served!("console-page.js")),
    script("/console-list.js", served!("console-list.js")),
    script("/console-figures.js", served!("console-figures.js")),
    script("/console-server.js", served!("console-server.js")),
    // Pages of other origins may import the client: it is public, and has no powers of its own.
    File {
        path: "/crieur.js",
        is_console: false,
        content_type: JAVASCRIPT,
        fields: &[
            NO_CACHE,
            NO_SNIFF,
            ("Access-Control-Allow-Origin", "*"),
            ("Cross-Origin-Resource-Policy", "cross-origin"),
        ],
        text: served!("crieur.js"),
    },
];

/// The file at `path`.
#[must_use]
pub fn find(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of every attribute and import that makes a browser load something.
    fn loaded(text: &str) -> Vec<&str> {
        ["src=\"", "href=\"", " from '", "import '", "url("]
            .into_iter()
            .flat_map(|start| text.split(start).skip(1))
            .filter_map(|rest| rest.split(['"', '\'', ')']).next())
            .collect()
    }

    #[test]
    fn the_console_loads_only_what_is_here() {
        let console = FILES.iter().filter(|file| file.is_console);
        let names: Vec<_> = console.flat_map(|file| loaded(file.text)).collect();
        assert!(names.len() >= 3, "{names:?}");
        for name in names {
            let path = name.strip_prefix('.').unwrap_or(name);
            let path = if path.starts_with('/') {
                path.to_owned()
            } else if path.starts_with('?') {
                "/".to_owned()
            } else {
                format!("/{path}")
            };
            assert!(
                find(&path).is_some() || name.starts_with("data:") || name.starts_with('#'),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_stripped_is_comments_and_indentation() {
        let text =
            "/** a\n * b\n */\nlet a; // c\n\n  /* d */\n  // e\n  let b = '/*';\n/ f\n/*\n*/\ng";
        let mut bytes = [0; 100];
        let length = strip(text.as_bytes(), &mut bytes);
        assert_eq!(
            str::from_utf8(&bytes[..length]),
            Ok("let a; // c\nlet b = '/*';\n/ f\ng")
        );
        assert_eq!(strip(text.as_bytes(), &mut []), length);
        for file in FILES {
            assert!(file.text.len() > 1000, "{}", file.path);
            assert!(!file.text.contains("\n//") && !file.text.contains("\n "));
            // A text of several lines would lose something.
            let is_whole = |line: &str| line.matches('`').count().is_multiple_of(2);
            assert!(file.text.lines().all(is_whole), "{}", file.path);
        }
    }

    #[test]
    fn the_console_has_nothing_inline() {
        let page = find("/").expect("the page").text;
        for forbidden in ["<style", " style=", "<script>", " onclick=", "javascript:"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn the_policy_allows_nothing_by_default_and_nothing_inline() {
        assert!(CONTENT_SECURITY_POLICY.starts_with("default-src 'none';"));
        assert!(!CONTENT_SECURITY_POLICY.contains("unsafe"));
        assert!(!CONTENT_SECURITY_POLICY.contains('*'));
    }
}
