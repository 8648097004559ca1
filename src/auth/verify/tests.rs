use std::sync::Arc;

use base64::Engine;

use super::*;
use crate::auth::{Cost, basic};

fn hash(password: &str, cost: u32) -> String {
    let cost = Cost::new(cost).expect("allowed");
    BcryptHash::generate(&BcryptKey::new(password.as_bytes()), cost)
        .expect("randomness")
        .to_string()
}

fn users(entries: &[(&str, &str)]) -> Htpasswd {
    let file: String = entries
        .iter()
        .map(|(user, hash)| format!("{user}:{hash}\n"))
        .collect();
    Htpasswd::parse(file.as_bytes())
}

fn credentials(user: &str, password: &str) -> Credentials {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    basic::parse(format!("Basic {encoded}").as_bytes()).expect("credentials")
}

fn verifier(settings: VerifierSettings) -> Verifier {
    Verifier::new(settings).expect("threads")
}

/// Verifies a login from the loopback address.
async fn verify(
    verifier: &Verifier,
    domain: &str,
    users: &Htpasswd,
    credentials: &Credentials,
) -> Result<KnownUser, VerifyError> {
    match admit(verifier, domain, users, credentials)? {
        LoginAdmission::Remembered(user) => Ok(user),
        LoginAdmission::Pending(pending) => verifier.verify(*pending).await,
    }
}

fn admit(
    verifier: &Verifier,
    domain: &str,
    users: &Htpasswd,
    credentials: &Credentials,
) -> Result<LoginAdmission, VerifyError> {
    let client = std::net::Ipv4Addr::LOCALHOST.into();
    verifier.admit(&Login {
        domain,
        users,
        credentials,
        client,
        budgets: &FailureBudgets::default(),
    })
}

fn remembered(
    verifier: &Verifier,
    domain: &str,
    users: &Htpasswd,
    credentials: &Credentials,
) -> Option<KnownUser> {
    match admit(verifier, domain, users, credentials) {
        Ok(LoginAdmission::Remembered(user)) => Some(user),
        Ok(LoginAdmission::Pending(_)) | Err(_) => None,
    }
}

fn name(result: Result<KnownUser, VerifyError>) -> Result<String, VerifyError> {
    result.map(|user| user.name.to_string())
}

#[tokio::test]
async fn a_right_password_is_hashed_once_and_cached() {
    let verifier = verifier(VerifierSettings::default());
    let users = users(&[("ci", &hash("secret", 4))]);
    let right = credentials("ci", "secret");
    assert!(remembered(&verifier, "a", &users, &right).is_none());
    for _ in 0..3 {
        assert_eq!(
            name(verify(&verifier, "a", &users, &right).await),
            Ok("ci".to_owned())
        );
    }
    assert_eq!(
        remembered(&verifier, "a", &users, &right)
            .expect("remembered")
            .name
            .as_str(),
        "ci"
    );
    assert_eq!(
        verifier.status(),
        VerifierStatus {
            hashed: 1,
            waiting: 0,
            remembered: 1
        }
    );
    // Neither on another domain, nor with another password or user.
    assert!(remembered(&verifier, "b", &users, &right).is_none());
    for (user, password) in [
        ("ci", "secre"),
        ("ci", "secret2"),
        ("ci", ""),
        ("cis", "ecret"),
        ("CI", "secret"),
    ] {
        let wrong = credentials(user, password);
        assert!(remembered(&verifier, "a", &users, &wrong).is_none());
        assert_eq!(
            name(verify(&verifier, "a", &users, &wrong).await),
            Err(VerifyError::WrongPassword)
        );
    }
    assert_eq!(verifier.status().remembered, 1);
}

#[tokio::test]
async fn a_hundred_concurrent_logins_cost_one_hash() {
    let verifier = Arc::new(verifier(VerifierSettings::default()));
    let users = Arc::new(users(&[("ci", &hash("secret", 4))]));
    for password in ["secret", "wrong"] {
        let before = verifier.status().hashed;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (verifier, users) = (verifier.clone(), users.clone());
            let credentials = credentials("ci", password);
            tasks.spawn(async move { verify(&verifier, "a", &users, &credentials).await.is_ok() });
        }
        let results = tasks.join_all().await;
        assert!(results.iter().all(|&ok| ok == (password == "secret")));
        assert_eq!(verifier.status().hashed - before, 1, "{password}");
    }
}

#[tokio::test]
async fn a_changed_or_deleted_entry_invalidates_the_password_at_once() {
    let verifier = verifier(VerifierSettings::default());
    let before = users(&[("ci", &hash("old", 4))]);
    let old = credentials("ci", "old");
    verify(&verifier, "a", &before, &old).await.expect("right");
    assert!(remembered(&verifier, "a", &before, &old).is_some());
    for after in [
        users(&[("ci", &hash("new", 4))]),
        users(&[("other", &hash("old", 4))]),
    ] {
        assert!(remembered(&verifier, "a", &after, &old).is_none());
        assert_eq!(
            name(verify(&verifier, "a", &after, &old).await),
            Err(VerifyError::WrongPassword)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_password_is_verified_again_after_its_lifetime() {
    let verifier = verifier(VerifierSettings {
        lifetime: Duration::from_secs(60),
        ..VerifierSettings::default()
    });
    let users = users(&[("ci", &hash("secret", 4))]);
    let right = credentials("ci", "secret");
    verify(&verifier, "a", &users, &right).await.expect("right");
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(remembered(&verifier, "a", &users, &right).is_some());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(remembered(&verifier, "a", &users, &right).is_none());
    verify(&verifier, "a", &users, &right).await.expect("right");
    assert!(remembered(&verifier, "a", &users, &right).is_some());
    assert_eq!(verifier.status().hashed, 2);
}

#[tokio::test]
async fn passwords_are_compared_by_their_first_72_bytes() {
    let verifier = verifier(VerifierSettings::default());
    let users = users(&[("ci", &hash(&"x".repeat(80), 4))]);
    for length in 72..80 {
        verify(
            &verifier,
            "a",
            &users,
            &credentials("ci", &"x".repeat(length)),
        )
        .await
        .expect("right");
    }
    assert_eq!(
        verifier.status(),
        VerifierStatus {
            hashed: 1,
            waiting: 0,
            remembered: 1
        }
    );
    assert!(
        verify(&verifier, "a", &users, &credentials("ci", &"x".repeat(71)))
            .await
            .is_err()
    );
}

/// A verifier without threads, whose queue can be inspected.
fn without_threads() -> Verifier {
    let queue = Arc::new(PasswordQueue::new(
        PasswordCache::new(Duration::from_secs(60), 10),
        Lockout::random(Instant::now()),
        2,
    ));
    let secret = random_secret().expect("randomness");
    Verifier {
        key: Arc::new(TagKey::new(&*secret)),
        secret,
        queue,
        refused: AtomicU64::new(0),
    }
}

#[tokio::test]
async fn an_unknown_user_costs_what_a_wrong_password_costs() {
    let users = users(&[("low", &hash("a", 4)), ("high", &hash("a", 6))]);
    let mut rounds = Vec::new();
    for user in ["low", "high", "nobody"] {
        let verifier = without_threads();
        let wrong = credentials(user, "wrong");
        // Two at once: the second joins the first for every user alike.
        let both = async {
            tokio::join!(
                verify(&verifier, "a", &users, &wrong),
                verify(&verifier, "a", &users, &wrong)
            )
        };
        let work = async {
            assert_eq!(verifier.status().waiting, 1);
            let taken = verifier.queue.next().expect("one check");
            let costs = std::iter::once(taken.hash.cost())
                .chain(taken.hash.cost().missing_to(taken.highest));
            rounds.push(costs.map(Cost::rounds).sum::<u32>());
            verifier.queue.run(&taken, check);
        };
        let ((first, second), ()) = tokio::join!(biased; both, work);
        assert_eq!(
            [name(first), name(second)],
            [
                Err(VerifyError::WrongPassword),
                Err(VerifyError::WrongPassword)
            ]
        );
        assert_eq!(
            verifier.status(),
            VerifierStatus {
                hashed: 1,
                waiting: 0,
                remembered: 0
            }
        );
    }
    assert_eq!(rounds, [64, 64, 64]);
}

#[tokio::test]
async fn a_full_queue_refuses_checks_until_a_client_leaves() {
    let verifier = without_threads();
    let users = users(&[("ci", &hash("secret", 4))]);
    let names = ["ci", "b", "nobody"].map(|user| credentials(user, "wrong"));
    let mut waiting: Vec<_> = names
        .iter()
        .map(|c| Box::pin(verify(&verifier, "a", &users, c)))
        .collect();
    let mut poll = async |at: usize| {
        let future = waiting.get_mut(at).expect("there");
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx))).await
    };
    assert!(poll(0).await.is_pending() && poll(1).await.is_pending());
    assert!(matches!(
        poll(2).await,
        std::task::Poll::Ready(Err(VerifyError::Overloaded))
    ));
    waiting.clear();
    assert_eq!(verifier.status().waiting, 2);
    let mut next = Box::pin(verify(&verifier, "a", &users, &names[2]));
    let pending = std::future::poll_fn(|cx| std::task::Poll::Ready(next.as_mut().poll(cx))).await;
    assert!(pending.is_pending());
    assert_eq!(
        verifier.status().waiting,
        1,
        "the checks of clients that have gone are removed"
    );
}

#[test]
fn password_threads_have_a_lower_priority() {
    let before = rustix::process::getpriority_process(None).expect("known");
    let inside = thread::spawn(|| {
        yield_to_traffic();
        rustix::process::getpriority_process(None).expect("known")
    });
    assert_eq!(inside.join().expect("no panic"), (before + NICE).min(19));
    assert_eq!(
        rustix::process::getpriority_process(None).expect("known"),
        before,
        "the priority of this thread is unchanged"
    );
}

#[test]
fn the_verifier_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Verifier>();
}

#[tokio::test]
async fn a_successor_remembers_what_its_predecessor_knew() {
    let budgets = FailureBudgets {
        address: 2,
        user: 100,
        window: Duration::from_secs(3600),
    };
    let users = users(&[("ci", &hash("right", 4))]);
    let old = verifier(VerifierSettings::default());
    let admit = |verifier: &Verifier, password: &str, client: &str| {
        let credentials = credentials("ci", password);
        let login = Login {
            domain: "ci.test",
            users: &users,
            credentials: &credentials,
            client: client.parse().expect("an address"),
            budgets: &budgets,
        };
        verifier.admit(&login)
    };
    for (password, client) in [
        ("right", "192.0.2.1"),
        ("wrong", "192.0.2.2"),
        ("wrong too", "192.0.2.2"),
        ("wrong", "192.0.2.1"),
    ] {
        let Ok(LoginAdmission::Pending(pending)) = admit(&old, password, client) else {
            panic!("nothing is known yet");
        };
        let verified = old.verify(*pending).await;
        assert_eq!(verified.is_ok(), password == "right");
    }
    let new = Verifier::resume(VerifierSettings::default(), old.known()).expect("threads");
    let known = new.known();
    assert_eq!(known.passwords.len(), 1);
    assert_eq!(known.failures.tables, old.known().failures.tables);
    assert!(matches!(
        admit(&new, "right", "192.0.2.2"),
        Ok(LoginAdmission::Remembered(_))
    ));
    // The budget of the address is used up, and that of the user at the other one is not.
    assert!(matches!(
        admit(&new, "another", "192.0.2.2"),
        Err(VerifyError::Refused(_))
    ));
    assert!(matches!(
        admit(&new, "wrong", "192.0.2.1"),
        Err(VerifyError::WrongPassword)
    ));
    assert!(matches!(
        admit(&new, "another", "192.0.2.1"),
        Ok(LoginAdmission::Pending(_))
    ));
}
