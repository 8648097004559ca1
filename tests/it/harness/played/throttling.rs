//! 429 in each product's form.

use super::answer::PlayedAnswer;
use super::{Played, PlayedThrottling};

impl Played {
    /// Instead of the answer, while the registry throttles.
    pub fn throttled(&mut self) -> Option<PlayedAnswer> {
        self.switches.throttled = self.switches.throttled.checked_sub(1)?;
        let answer = match self.switches.throttling {
            PlayedThrottling::Error(error) => PlayedAnswer::refused(error, "", ""),
            PlayedThrottling::Nginx => PlayedAnswer::new(429).body(
                "text/html",
                "<html>\r\n<head><title>429 Too Many Requests</title></head>\r\n</html>\r\n",
            ),
            PlayedThrottling::Text(text) => PlayedAnswer::new(429).body("text/plain", text),
        };
        Some(match self.switches.product {
            "dockerhub" => answer
                .header("ratelimit-limit", "100;w=21600")
                .header("ratelimit-remaining", "0;w=21600"),
            "acr" => answer.header("retry-after", "7"),
            "ghcr" | "gitlab" => answer.header("retry-after", "60"),
            _ => answer,
        })
    }

    /// The same at its own API.
    pub fn api_throttled(&mut self) -> Option<PlayedAnswer> {
        self.switches.api_throttled = self.switches.api_throttled.checked_sub(1)?;
        let message = serde_json::json!({ "message": "rate limit exceeded" });
        Some(match self.switches.product {
            "ecr" => super::api::aws_error("ThrottlingException", "Rate exceeded"),
            "dockerhub" => PlayedAnswer::json(429, &message).header("x-retry-after", "1700000000"),
            "ghcr" => PlayedAnswer::json(403, &message)
                .header("x-ratelimit-remaining", "0")
                .header("retry-after", "60"),
            _ => PlayedAnswer::json(429, &message).header("retry-after", "7"),
        })
    }
}
