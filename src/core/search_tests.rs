//! What fits and in which order, and that the bounds hold.

use super::*;
use crate::wire::control::FileTag;
use proptest::prelude::*;

const NOW: u64 = 1_000_000;
const OTTER: Owner = [1; 8];
const HERON: Owner = [2; 8];

fn members() -> Vec<(Owner, String)> {
    vec![(OTTER, "brave-otter".into()), (HERON, "calm-heron".into())]
}

fn query(search: &Search) -> Query {
    Query::parse(search, NOW, &members(), None).unwrap()
}

fn words(text: &str) -> Query {
    query(&Search { words: vec![text.into()], ..Search::default() })
}

fn file(name: &[u8]) -> Candidate<'_> {
    Candidate { kind: FileKind::File, size: 10, made_ms: NOW, owner: OTTER, name, tags: "" }
}

fn cost(query: &Query, one: &Candidate<'_>) -> Option<u32> {
    query.rank(one, &mut Scratch::default()).map(|rank| rank.cost)
}

#[test]
fn words_are_found_wherever_they_may_be() {
    for (asked, name, expected) in [
        ("report.pdf", "Report.PDF", Some(0)),
        ("rep", "report.pdf", Some(1)),
        ("port", "my port.pdf", Some(2)),
        ("2026", "report_2026.pdf", Some(2)),
        ("port", "report-port.pdf", Some(2)),
        ("port", "report.pdf", Some(3)),
        ("rep 2026", "rep-2026.pdf", Some(3)),
        ("rep 2026", "report.pdf", None),
        ("HERON", "report.pdf", None),
        ("otter rep", "report.pdf", Some(6)),
        ("*.pdf", "report.pdf", Some(3)),
        ("*.pdf", "report.pdf.txt", None),
        ("r?port*", "REPORT", Some(3)),
        ("ärger", "viel ÄRGER.txt", Some(2)),
        ("σας", "ΝΕΑ ΣΑΣ", None),
        ("σασ", "ΝΕΑ ΣΑΣ", Some(2)),
    ] {
        assert_eq!(cost(&words(asked), &file(name.as_bytes())), expected, "{asked} {name}");
    }
    let tagged = Candidate { tags: "Tax,year-2026", ..file(b"scan.pdf") };
    assert_eq!(cost(&words("tax"), &tagged), Some(4));
    assert_eq!(cost(&words("ye*"), &tagged), Some(4));
    assert_eq!(cost(&words("ear"), &tagged), None, "a tag is found by its beginning");
    // What is not text is found by what is.
    assert_eq!(cost(&words("scan"), &file(b"\xff scan \xfe")), Some(2));
}

#[test]
fn every_filter_counts() {
    let one = Candidate { tags: "a,b", ..file(b"x.tar.gz") };
    let tag = |text: &str| FileTag::new(text).unwrap();
    let none = Search::default();
    let fits = |search: Search| cost(&query(&search), &one).is_some();
    assert!(fits(Search { kinds: vec![FileKind::Dir, FileKind::File], ..none.clone() }));
    assert!(!fits(Search { kinds: vec![FileKind::Dir], ..none.clone() }));
    assert!(fits(Search { endings: vec!["pdf".into(), "GZ".into()], ..none.clone() }));
    assert!(!fits(Search { endings: vec!["tar".into()], ..none.clone() }));
    let either = |kind, ending: &str| {
        fits(Search { kinds: vec![kind], endings: vec![ending.into()], ..none.clone() })
    };
    assert!(either(FileKind::Dir, "gz") && either(FileKind::File, "pdf"));
    assert!(!either(FileKind::Dir, "pdf"), "of none of the types");
    assert!(fits(Search { min: Some(10), max: Some(10), ..none.clone() }));
    assert!(!fits(Search { min: Some(11), ..none.clone() }));
    assert!(!fits(Search { max: Some(9), ..none.clone() }));
    assert!(fits(Search { newer_ms: Some(0), ..none.clone() }));
    assert!(!fits(Search { older_ms: Some(1), ..none.clone() }));
    assert!(fits(Search { tags: vec![tag("B"), tag("a")], ..none.clone() }));
    assert!(!fits(Search { tags: vec![tag("a"), tag("c")], ..none.clone() }));
    let dir = Candidate { kind: FileKind::Dir, ..one };
    let small = query(&Search { max: Some(100), ..none.clone() });
    assert_eq!(cost(&small, &dir), None, "only files have a length");
    let of = |owner| Query::parse(&none, NOW, &members(), Some(vec![owner])).unwrap();
    assert!(cost(&of(OTTER), &one).is_some() && cost(&of(HERON), &one).is_none());
    assert!(cost(&query(&Search { endings: vec!["x".into()], ..none }), &file(b".x")).is_none());
}

#[test]
fn a_question_is_bounded_and_says_something() {
    let parse = |search: &Search| Query::parse(search, NOW, &[], None).map(drop);
    assert_eq!(parse(&Search::default()), Err(BadQuery::Empty));
    assert_eq!(
        parse(&Search { words: vec!["  ".into()], ..Search::default() }),
        Err(BadQuery::Empty)
    );
    let long = vec!["x".repeat(256)];
    assert_eq!(parse(&Search { words: long, ..Search::default() }), Err(BadQuery::TooLong));
    let many = vec!["x".to_owned(); 17];
    assert_eq!(parse(&Search { words: many, ..Search::default() }), Err(BadQuery::TooLong));
}

#[test]
fn what_fits_best_comes_first() {
    let asked = words("rep");
    let made = |name: &'static [u8], made_ms| Candidate { made_ms, ..file(name) };
    let order = [
        made(b"rep", 1),
        made(b"rep1", 2),
        made(b"rep2", 1),
        made(b"report", 9),
        made(b"my rep", 9),
        made(b"xrep", 9),
    ];
    let rank = |one| asked.rank(one, &mut Scratch::default()).unwrap();
    assert!(order.iter().map(rank).is_sorted_by(|a, b| a < b));
    let all = query(&Search { min: Some(1), ..Search::default() });
    let (old, new) = (made(b"a", 1), made(b"longer", 2));
    let rank = |one| all.rank(one, &mut Scratch::default()).unwrap();
    assert!(rank(&new) < rank(&old), "without words the newest comes first");
}

proptest! {
    #[test]
    fn the_top_is_the_front_of_all(
        costs in proptest::collection::vec(0..20_u32, 0..60),
        most in 1..20_usize,
    ) {
        let rank = |cost| Rank { cost, length: 0, made_ms: Reverse(0) };
        let mut top = Top::new(most);
        for (number, cost) in costs.iter().enumerate() {
            top.offer(rank(*cost), || number);
        }
        let mut all: Vec<_> = costs.iter().enumerate().map(|(n, cost)| (rank(*cost), n)).collect();
        all.sort_unstable();
        all.truncate(most);
        prop_assert_eq!(top.into_sorted(), all);
    }

    #[test]
    fn patterns_are_those_of_a_shell(pattern in "[ab?*]{0,6}", text in "[ab]{0,8}") {
        let chars: Vec<char> = pattern.chars().collect();
        let regex = pattern.replace('?', ".").replace('*', ".*");
        let regex = regex::Regex::new(&format!("^{regex}$")).unwrap();
        prop_assert_eq!(matches(&chars, &text), regex.is_match(&text));
    }

    #[test]
    fn a_word_is_where_the_library_finds_it(name in "[ab .]{0,12}", word in "[ab]{1,3}") {
        let search = Search { words: vec![word.clone()], ..Search::default() };
        // Without members: the letters are in their names, too.
        let asked = Query::parse(&search, NOW, &[], None).unwrap();
        let found = cost(&asked, &file(name.as_bytes()));
        prop_assert_eq!(found.is_some(), name.contains(&word));
        prop_assert_eq!(found == Some(0), name == word);
        prop_assert_eq!(matches!(found, Some(0 | 1)), name.starts_with(&word));
    }
}
