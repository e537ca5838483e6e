//! The tutorial shows the code of this crate, not a copy that has grown old.

#[test]
fn what_the_tutorial_shows_is_what_this_crate_does() {
    let page = include_str!("../../../docs/adding-a-quantizer.md");
    let (main, search) = (include_str!("../src/lib.rs"), include_str!("../src/search.rs"));
    for (source, start) in [
        (search, "pub fn best_scale"),
        (search, "pub fn nearest"),
        (main, "pub struct Ternary {"),
        (main, "pub enum TernaryError {"),
        (main, "impl Ternary {"),
        (main, "impl Quantizer for Ternary {"),
    ] {
        let item = |text: &'static str| {
            let (at, _) = text.match_indices(start).next().unwrap_or_else(|| panic!("no `{start}`"));
            let end = text[at..].find("\n}\n").expect("items end with a brace of their own");
            &text[at..at + end]
        };
        assert_eq!(item(page), item(source));
    }
}
