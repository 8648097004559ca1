use proptest::prelude::*;

use super::*;

const HASH: &str = "$2y$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie";

fn names(users: &Htpasswd) -> Vec<&str> {
    let mut names: Vec<_> = users.entries.keys().map(UserName::as_str).collect();
    names.sort_unstable();
    names
}

fn reasons(file: &[u8]) -> Vec<(usize, SkipReason)> {
    Htpasswd::parse(file)
        .skipped
        .iter()
        .map(|s| (s.line, s.reason))
        .collect()
}

#[test]
fn comments_line_ends_marks_and_white_space_do_not_count() {
    let file = format!(
        "\u{feff}ci:{HASH}\r\n# comment\r\n\r\n \t\n  b:{HASH}  \nj\u{f6}rg:{HASH}:a remark\n #x\nlast:{HASH}"
    );
    let users = Htpasswd::parse(file.as_bytes());
    assert_eq!(names(&users), ["b", "ci", "j\u{f6}rg", "last"]);
    assert_eq!(users.skipped(), []);
}

#[test]
fn other_kinds_are_named() {
    let file = b"a:$apr1$abc$def\nb:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\nc:{SSHA}xyz\nd:$1$a$b\ne:$5$a$b\nf:$6$a$b\n\
        g:rqXexS6ZhobKA\nh:s3cret\ni:\nj:$2y$10$short\nk:$2x$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie\n\
        l:$2y$31$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie\nm:{MD5}x\nn:$argon2id$v=19$x\n";
    let expected = [
        SkipReason::Md5,
        SkipReason::Sha1,
        SkipReason::SaltedSha1,
        SkipReason::Crypt,
        SkipReason::Crypt,
        SkipReason::Crypt,
        SkipReason::DesCrypt,
        SkipReason::Plain,
        SkipReason::Empty,
        SkipReason::BrokenBcrypt,
        SkipReason::BrokenBcrypt,
        SkipReason::Cost { cost: 31 },
        SkipReason::Unknown,
        SkipReason::Crypt,
    ];
    assert_eq!(reasons(file), (1..).zip(expected).collect::<Vec<_>>());
}

/// RUSTSEC-2026-0199: such hashes once ended the process.
#[test]
fn odd_bytes_are_reported_and_harm_nothing() {
    let cut = [
        HASH.as_bytes().get(..30).expect("long enough"),
        "é".as_bytes(),
    ]
    .concat();
    let wide: Vec<u8> = HASH.replace("xcie", "éé").into_bytes();
    let file = [
        &b"a:"[..],
        &cut,
        b"\nb:",
        &wide,
        b"\n\xff\xfe:",
        HASH.as_bytes(),
        b"\nx\0y:z\n:z\nnothing\n",
    ]
    .concat();
    let expected = [
        (1, SkipReason::BrokenBcrypt),
        (2, SkipReason::BrokenBcrypt),
        (3, SkipReason::UserName),
        (4, SkipReason::UserName),
        (5, SkipReason::UserName),
        (6, SkipReason::NoColon),
    ];
    assert_eq!(reasons(&file), expected);
}

#[test]
fn the_first_line_of_a_user_counts_even_if_it_cannot_be_used() {
    let file = format!("a:{HASH}\na:other\nb:plain\nb:{HASH}\n");
    assert_eq!(names(&Htpasswd::parse(file.as_bytes())), ["a"]);
    let expected = [
        (2, SkipReason::Repeated { first: 1 }),
        (3, SkipReason::Plain),
        (4, SkipReason::Repeated { first: 3 }),
    ];
    assert_eq!(reasons(file.as_bytes()), expected);
}

#[test]
fn unknown_users_cost_as_much_as_the_highest_entry() {
    let file = format!("a:{HASH}\nb:{}\n", HASH.replace("$04$", "$09$"));
    let users = Htpasswd::parse(file.as_bytes());
    let nine = Cost::new(9).expect("allowed");
    let unknown = users.claim("nobody");
    assert_eq!(
        (unknown.user, unknown.hash.cost(), unknown.highest),
        (None, nine, nine)
    );
    let a = users.claim("a");
    assert_eq!((a.user.map(UserName::as_str), a.highest), (Some("a"), nine));
    assert!(users.claim("A").user.is_none());
    assert_eq!(Htpasswd::parse(b"").claim("a").highest, Cost::DEFAULT);
}

#[test]
fn messages_say_what_to_do_and_never_quote_the_line() {
    let file = b"ci:$apr1$abc$def\nci:x\na b:s3cret\ns3cret\nx:$2y$03$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie\n\0:a\n";
    let messages: Vec<_> = Htpasswd::parse(file)
        .skipped()
        .iter()
        .map(ToString::to_string)
        .collect();
    insta::assert_snapshot!(messages.join("\n"), @r"
    line 1: `ci` has an MD5 password ($apr1$), only bcrypt is accepted: run `moorgate htpasswd FILE ci` or `htpasswd -B FILE ci`
    line 2: `ci` is already on line 1, which is the one that counts: delete one of them
    line 3: `a b` has a plain password, only bcrypt is accepted: run `moorgate htpasswd FILE USER` or `htpasswd -B FILE USER`
    line 4: is not `user:hash`, and not a comment either
    line 5: `x` has a bcrypt hash of cost 3, not 4 to 17: run `moorgate htpasswd FILE x` or `htpasswd -B FILE x`
    line 6: has a user name that is empty, too long or holds characters that cannot be sent
    ");
    assert!(!format!("{:?}", Htpasswd::parse(HASH.as_bytes())).contains("EGdrhb"));
}

proptest! {
    #[test]
    fn nothing_panics(file: Vec<u8>, text in "([a-z#:$2y ]{0,8}|\\PC|\r?\n){0,40}") {
        for skipped in Htpasswd::parse(&file).skipped().iter().chain(Htpasswd::parse(text.as_bytes()).skipped()) {
            let _ = skipped.to_string();
        }
    }

    #[test]
    fn a_printed_file_reads_the_same(users in proptest::collection::btree_map("[a-zA-Z0-9é._@-]{1,20}", (4u32..=17, "[./A-Za-z0-9]{53}"), 0..20)) {
        let print = |users: &HashMap<UserName, UserEntry>| {
            users.iter().map(|(user, entry)| format!("{user}:{}\n", entry.hash)).collect::<String>()
        };
        let file: String = users.iter().map(|(user, (cost, rest))| format!("{user}:$2b${cost:02}${rest}\n")).collect();
        let read = Htpasswd::parse(file.as_bytes());
        prop_assert_eq!(read.users(), users.len());
        prop_assert_eq!(&Htpasswd::parse(print(&read.entries).as_bytes()), &read);
    }
}
