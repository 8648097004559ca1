//! No pattern makes the parser panic; what matches has what the pattern says of all that do. The
//! lines of the input are a pattern, another one, a name, and a user.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moorgate::internal::registry::LiteralPosition;
use moorgate::internal::registry::{Pattern, RepositoryPattern};

fuzz_target!(|input: &str| {
    let mut lines = input.split('\n');
    let [one, other, name, user] = [(); 4].map(|()| lines.next().unwrap_or_default());
    let [text, narrow] = [one, other].map(Pattern::new);
    assert!(!text.covers(&narrow) || !narrow.matches(name) || text.matches(name));
    let Ok(pattern) = RepositoryPattern::parse(one) else { return };
    assert_eq!(RepositoryPattern::parse(pattern.as_str()).as_ref(), Ok(&pattern));
    let _ = pattern.is_possible(Some(user));
    if pattern.matches(name, Some(user)) {
        for literal in pattern.literals() {
            assert!(match literal.at {
                LiteralPosition::Whole => *literal.text == *name,
                LiteralPosition::Start => name.starts_with(&*literal.text),
                LiteralPosition::End => name.ends_with(&*literal.text),
                LiteralPosition::Inside => name.contains(&*literal.text),
            });
        }
    }
    let Ok(narrow) = RepositoryPattern::parse(other) else { return };
    assert!(
        !pattern.covers(&narrow) || !narrow.matches(name, Some(user)) || pattern.matches(name, Some(user))
    );
});
