//! Updates that are told as one.

use super::{
    super::untold::{News, Untold},
    *,
};

/// Something that one of several editors does. No letter has two units: cut in two, it is two unknown ones.
#[derive(Clone, Debug)]
enum Doing {
    Insert(u16, String),
    Delete(u16, u8),
    Bold(u16, u8),
    Set(u8, i64),
    Push(i64),
}

fn doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        4 => (any::<u16>(), "[a-zé漢]{1,9}").prop_map(|(at, text)| Doing::Insert(at, text)),
        2 => (any::<u16>(), 1..20u8).prop_map(|(at, count)| Doing::Delete(at, count)),
        1 => (any::<u16>(), 1..20u8).prop_map(|(at, count)| Doing::Bold(at, count)),
        1 => (0..3u8, any::<i64>()).prop_map(|(key, value)| Doing::Set(key, value)),
        1 => any::<i64>().prop_map(Doing::Push),
    ]
}

impl Editor {
    /// Does it somewhere, and returns the update.
    fn does(&self, doing: &Doing) -> Vec<u8> {
        let mut txn = self.doc.transact_mut();
        let length = self.text.len(&txn);
        let place = |at: u16, count: u8| {
            let at = u32::from(at) % (length + 1);
            (at, u32::from(count).min(length - at))
        };
        match doing {
            Doing::Insert(at, text) => self.text.insert(&mut txn, place(*at, 0).0, text),
            Doing::Delete(at, count) => {
                let (at, count) = place(*at, *count);
                self.text.remove_range(&mut txn, at, count);
            }
            Doing::Bold(at, count) => {
                let (at, count) = place(*at, *count);
                self.text.format(&mut txn, at, count, [("bold".into(), true.into())].into());
            }
            Doing::Set(key, value) => {
                let map = txn.get_or_insert_map("map");
                map.insert(&mut txn, key.to_string(), *value);
            }
            Doing::Push(value) => {
                let list = txn.get_or_insert_array("list");
                list.push_back(&mut txn, *value);
            }
        }
        txn.encode_update_v1()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn updates_that_are_told_as_one_do_what_they_did_one_by_one(
        history in prop::collection::vec((0..4usize, doing(), any::<bool>()), 1..60),
    ) {
        let editors = [1, 2, 3, 4].map(Editor::new);
        let (mut document, mut reader, mut untold) = (empty(), empty(), Untold::default());
        for (who, doing, tells) in &history {
            let update = editors[*who].does(doing);
            if let Outcome::Applied(_, applied) = apply(&mut document, &update)
                && let Change::Update(effect) = applied.change
            {
                untold.add_update(effect, Some(*who as u64));
            }
            if !tells {
                continue;
            }
            let news = untold.take_updates();
            prop_assert!(news.len() < 2);
            for News { what, .. } in news {
                check::update(&what).unwrap();
                let update = Update::decode_v1(&what).unwrap();
                reader.doc.transact_mut().apply_update(update).unwrap();
                editors.iter().for_each(|editor| editor.take(&what));
            }
            prop_assert_eq!(reader.state_vector(), document.state_vector());
            prop_assert_eq!(reader.value(), document.value());
            for editor in &editors {
                prop_assert_eq!(editor.text(), reader.text("text").unwrap_or_default());
            }
        }
        apply(&mut reader, &document.state().unwrap());
        prop_assert_eq!(reader.value(), document.value());
    }
}
