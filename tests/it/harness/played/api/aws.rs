//! What calls of AWS have in common: signatures, and errors of JSON 1.1.

use super::super::answer::PlayedAnswer;
use super::super::signature;
use super::super::{Played, RecordedRequest};

impl Played {
    pub(super) fn aws_api(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        let Some(action) = request.action() else {
            return PlayedAnswer::no_page();
        };
        let own = &self.switches.credentials;
        match signature::key_id(request) {
            Some(key_id) if key_id == own.key_id => {}
            Some(_) => {
                let message = "The security token included in the request is invalid.";
                return aws_error("UnrecognizedClientException", message);
            }
            None => {
                let message = "Missing Authentication Token";
                return aws_error("MissingAuthenticationTokenException", message);
            }
        }
        if !signature::is_valid(request, &own.secret_key) {
            let message = "The request signature we calculated does not match the signature you \
                           provided.";
            return aws_error("InvalidSignatureException", message);
        }
        if self.switches.denied_action == Some(action) {
            return aws_error("AccessDeniedException", &not_authorized(action));
        }
        self.ecr_action(action, &request.json())
    }
}

/// As AWS says it of a right that an identity lacks.
pub fn not_authorized(action: &str) -> String {
    format!(
        "User: arn:aws:iam::123456789012:user/ci is not authorized to perform: ecr:{action} on \
         resource: * because no identity-based policy allows the ecr:{action} action"
    )
}

/// An error of JSON 1.1.
pub fn aws_error(kind: &str, message: &str) -> PlayedAnswer {
    let error = serde_json::json!({"__type": kind, "message": message});
    aws_answer(400, &error).header("x-amzn-errortype", format!("{kind}:"))
}

pub fn aws_answer(status: u16, document: &serde_json::Value) -> PlayedAnswer {
    PlayedAnswer::new(status).body("application/x-amz-json-1.1", document.to_string())
}
