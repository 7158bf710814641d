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
    /// What is in it.
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
        text: include_str!("console.html"),
    },
    File {
        path: "/console.css",
        is_console: true,
        content_type: CSS,
        fields: &[NO_CACHE, NO_SNIFF, SAME_ORIGIN],
        text: include_str!("console.css"),
    },
    File {
        path: "/console.js",
        is_console: true,
        content_type: JAVASCRIPT,
        fields: &[NO_CACHE, NO_SNIFF, SAME_ORIGIN],
        text: include_str!("console.js"),
    },
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
        text: include_str!("crieur.js"),
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
