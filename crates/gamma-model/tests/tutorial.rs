//! The page on adding a family shows the code of this crate, not a copy that has grown old.

#[test]
fn what_the_page_shows_is_what_this_crate_does() {
    let page = include_str!("../../../docs/adding-a-model.md");
    let experts = include_str!("../src/architecture/mixtral.rs");
    let window = include_str!("../src/architecture/mistral.rs");
    for (source, start, end) in
        [(experts, "pub(super) const FAMILY", "\n};\n"), (window, "pub(super) fn window", "\n}\n")]
    {
        let item = |text: &'static str| {
            let at = text.find(start).unwrap_or_else(|| panic!("no `{start}`"));
            let length = text[at..].find(end).expect("an item with an end");
            &text[at..at + length]
        };
        assert_eq!(item(page), item(source));
    }
}
