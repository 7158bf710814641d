//! The word that was probably meant, where one is misspelt. Knows nothing of what the words are for.
//!
//! Main entry: [`nearest`].

/// The longest word that is compared; a longer one is nobody's slip.
const WORD_BYTES_MAX: usize = 64;

/// Of `known`, the word that `word` is a slip of: a third of its letters may be wrong, or its end may be missing.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    // The names of options and of variables have a part that is always right.
    let letters = word.trim_start_matches("CRIEUR_").trim_matches('-').len();
    let allowed = letters / 3;
    let cost = |candidate: &str| match distance(word.as_bytes(), candidate.as_bytes()) {
        wrong if wrong <= allowed => Some(wrong),
        _ if letters >= 3 && candidate.starts_with(word) => Some(allowed + candidate.len()),
        _ => None,
    };
    let costs = known.filter_map(|candidate| Some((cost(candidate)?, candidate)));
    costs.min_by_key(|(cost, _)| *cost).map(|(_, word)| word)
}

/// The fewest letters that have to be put in, left out, replaced, or swapped with their neighbour (optimal string
/// alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = above[j] + usize::from(a[i] != b[j]);
            let mut least = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                let swapped: &Vec<usize> = &before;
                least = least.min(swapped[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_known_and_another_word_is_not() {
        let options = ["--url", "--key", "--type", "--token-file", "--no-keep"];
        let variables = ["CRIEUR_LISTEN", "CRIEUR_PUBLISH_TOKEN_FILE"];
        for (word, known, expected) in [
            ("--ulr", &options[..], Some("--url")),
            ("--typ", &options, Some("--type")),
            ("--tokn-fiel", &options, Some("--token-file")),
            ("--token", &options, Some("--token-file")),
            ("--no-keeep", &options, Some("--no-keep")),
            ("--to", &options, None),
            ("--nonsense", &options, None),
            ("-u", &options, None),
            ("", &options, None),
            ("CRIEUR_LISTNE", &variables, Some("CRIEUR_LISTEN")),
            (
                "CRIEUR_PUBLISH_TOKEN_FIEL",
                &variables,
                Some("CRIEUR_PUBLISH_TOKEN_FILE"),
            ),
            ("CRIEUR_CHECK", &variables, None),
        ] {
            assert_eq!(nearest(word, known.iter().copied()), expected, "{word}");
        }
        let long = "a".repeat(WORD_BYTES_MAX + 1);
        assert_eq!(nearest(&long, [long.as_str()].into_iter()), None);
    }

    #[test]
    fn the_distance_counts_slips() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("abc", "ab", 1),
            ("abc", "xbc", 1),
            ("kitten", "sitting", 3),
            ("publsih", "publish", 1),
        ] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
            assert_eq!(distance(b.as_bytes(), a.as_bytes()), expected, "{b} {a}");
        }
    }
}
