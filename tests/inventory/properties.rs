//! No text makes the inventory panic, and parameters survive exactly or are refused.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = Inventory::parse(Path::new("x"), &text);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.yaml");
        fs::write(&path, bytes).expect("a file");
        let _ = Inventory::load(&path);
    }

    /// Text made of YAML's own marks gets further into the parser than letters.
    #[test]
    fn no_yaml_like_text_makes_it_panic(text in r#"([a-z]{0,3}|[:\-\[\]{}#&*!|>'"%@`,?]|[ \n\t\r]| {2}|: |- |\u{feff}|ä|\x00){0,40}"#) {
        let _ = Inventory::parse(Path::new("x"), &text);
    }

    /// A valid inventory with one changed part reaches the checks after the parser.
    #[test]
    fn no_change_of_a_right_one_makes_it_panic(
        at in 0..include_str!("../../inventories/tutorial.yaml").len(),
        length in 0_usize..20,
        with in r#"[a-z0-9:\-\[\]{}#&*!|>'", \nä.]{0,12}"#,
    ) {
        let text = include_str!("../../inventories/tutorial.yaml");
        let boundary = |offset: usize| {
            (offset.min(text.len())..=text.len()).find(|it| text.is_char_boundary(*it))
        };
        let start = boundary(at).unwrap_or(0);
        let end = boundary(start + length).unwrap_or(start);
        let changed = format!("{}{with}{}", &text[..start], &text[end..]);
        let _ = Inventory::parse(Path::new("x"), &changed);
    }

    /// A parameter's value comes out unchanged, or is refused.
    #[test]
    fn parameters_survive_exactly_or_are_refused(value in any::<String>()) {
        let quoted = serde_json::to_string(&value).expect("a string");
        let text = format!("{SMALLEST}postgresql: {{ parameters: {{ log_line_prefix: {quoted} }} }}\n");
        match Inventory::parse(Path::new("x"), &text) {
            Ok(inventory) => prop_assert_eq!(
                inventory.postgresql.parameters.get("log_line_prefix"),
                Some(&value)
            ),
            Err(error) => {
                prop_assert_eq!(error.kind(), Kind::Input);
                prop_assert!(
                    value.chars().any(char::is_control) || error.what().contains("YAML"),
                    "{}", shown(&error)
                );
            }
        }
    }
}
