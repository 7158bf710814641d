//! Receipts: what publishers are told of what they have published, and the ids in that.
//!
//! Most tests know to the byte what a receipt says but for its id, which no test can know. So the helpers that
//! read receipts check the form of the ids in them and take them off; what is left is compared.

/// The most bytes that an id may have (protocol 6.1).
const ID_BYTES_MAX: usize = 40;

/// Whether this is the beginning of a receipt, or of several.
fn is_receipt(text: &str) -> bool {
    [
        r#"{"type":"published","delivered":"#,
        r#"{"delivered":"#,
        r#"[{"delivered":"#,
    ]
    .iter()
    .any(|start| text.starts_with(start))
}

/// Asserts that an id is one that clients may be told.
pub(crate) fn check_id(id: &str) {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    assert!((1..=ID_BYTES_MAX).contains(&id.len()), "{id:?}");
    assert!(id.bytes().all(is_allowed), "{id:?}");
}

/// A receipt, or an array of them, without its ids; and these. Each has one.
pub(crate) fn split_ids(receipt: &str) -> (String, Vec<String>) {
    let (mut without, mut ids, mut rest) = (String::new(), Vec::new(), receipt);
    while let Some((before, behind)) = rest.split_once(r#","id":""#) {
        let (id, behind) = behind.split_once('"').expect("an id ends");
        check_id(id);
        without.push_str(before);
        ids.push(id.to_owned());
        rest = behind;
    }
    without.push_str(rest);
    let receipts = receipt.matches(r#""delivered":"#).count();
    assert_eq!(ids.len(), receipts, "{receipt}");
    (without, ids)
}

/// The same of a receipt, whose only id this is.
pub(crate) fn split_id(receipt: &str) -> (String, String) {
    let (without, mut ids) = split_ids(receipt);
    assert_eq!(ids.len(), 1, "{receipt}");
    (without, ids.remove(0))
}

/// What a receipt says but for its ids; anything else as it is.
pub(crate) fn without_ids(text: String) -> String {
    if is_receipt(&text) {
        split_ids(&text).0
    } else {
        text
    }
}
