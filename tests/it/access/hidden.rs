//! A repository that one may not see answers as one that does not exist: the same status, code and words.

use super::stage::{KINDS, Stage, allow};
use crate::store::client::Answer;
use crate::store::image::sha256;

/// What a client can tell of an answer.
fn seen(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let told = |name: &str| !matches!(name, "date");
    let headers = answer.headers.iter().filter(|(name, _)| told(name.as_str()));
    let mut headers: Vec<_> =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    headers.sort();
    (answer.status, headers, String::from_utf8_lossy(&answer.body).into_owned())
}

#[tokio::test]
async fn what_may_not_be_seen_answers_as_if_it_did_not_exist() {
    for kind in KINDS {
        let stage = Stage::new(kind, &allow("own/**", "'pull', 'push'")).await;
        let image = stage.seeded(1, &["secret/app"], "v1").await;
        let (digest, blob) = (image.digest(), sha256(&image.layers[0]));
        let targets = [
            ("GET", "manifests/v1".to_owned()),
            ("HEAD", "manifests/v1".to_owned()),
            ("GET", format!("manifests/{digest}")),
            ("HEAD", format!("manifests/{digest}")),
            ("GET", format!("blobs/{blob}")),
            ("HEAD", format!("blobs/{blob}")),
            ("GET", format!("referrers/{digest}")),
            ("GET", "tags/list".to_owned()),
            ("GET", "tags/list?n=5&last=a".to_owned()),
            ("DELETE", "manifests/v1".to_owned()),
            ("DELETE", format!("manifests/{digest}")),
            ("DELETE", format!("blobs/{blob}")),
        ];
        for (method, target) in targets {
            // Who may see everything is told the truth about what is not there; as long as the other name.
            let truth = stage.client("root").ask(method, &format!("/v2/secret/nil/{target}")).await;
            let told = stage.client("alice").ask(method, &format!("/v2/secret/app/{target}")).await;
            let (status, headers, body) = seen(&told);
            let told = (status, headers, body.replace("secret/app", "secret/nil"));
            assert_eq!(told, seen(&truth), "{kind:?} {method} {target}");
            let free = stage.client("alice").ask(method, &format!("/v2/secret/nil/{target}")).await;
            assert_eq!(seen(&free), seen(&truth), "{kind:?} {method} {target}");
        }
        stage.client("root").check("secret/app", "v1", &image).await;
    }
}

#[tokio::test]
async fn a_push_is_refused_alike_whether_the_repository_exists_or_not() {
    for kind in KINDS {
        let stage = Stage::new(kind, &allow("own/**", "'pull', 'push'")).await;
        let image = stage.seeded(1, &["secret/app"], "v1").await;
        let mut alice = stage.client("alice");
        for (method, target) in [
            ("POST", "blobs/uploads/".to_owned()),
            ("POST", format!("blobs/uploads/?mount={}&from=own/app", sha256(&image.config))),
            ("PATCH", "blobs/uploads/1".to_owned()),
            ("GET", "blobs/uploads/1".to_owned()),
            ("DELETE", "blobs/uploads/1".to_owned()),
            ("PUT", format!("blobs/uploads/1?digest={}", image.digest())),
            ("PUT", "manifests/v1".to_owned()),
            ("PUT", format!("manifests/{}", image.digest())),
        ] {
            let there = alice.ask(method, &format!("/v2/secret/app/{target}")).await;
            let nowhere = alice.ask(method, &format!("/v2/secret/nil/{target}")).await;
            let there_says = there.refused(403, "DENIED").replace("secret/app", "secret/nil");
            assert_eq!(there_says, nowhere.refused(403, "DENIED"), "{kind:?} {method} {target}");
        }
    }
}
