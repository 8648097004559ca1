//! Uploads to a played registry: in one piece, in chunks, or from another repository.

use http::Method;
use serde_json::json;

use super::answer::PlayedAnswer;
use super::contents::digest;
use super::registry::is_digest;
use super::{Played, PlayedChunks, RecordedRequest};

impl Played {
    pub fn upload(&mut self, request: &RecordedRequest, (name, id): (&str, &str)) -> PlayedAnswer {
        if id.is_empty() {
            return self.begin_upload(request, name);
        }
        // One that has ended is told by the id alone.
        let current = match self.contents.uploads.get(id) {
            Some(upload) => state(id, upload.bytes.len()),
            None => format!("{id}."),
        };
        let given = request.parameter("_state").unwrap_or_default();
        let is_current = !self.switches.has_upload_state || given.starts_with(&current);
        if !is_current {
            return PlayedAnswer::error(404, "BLOB_UPLOAD_INVALID", "blob upload invalid");
        }
        let upload = self.contents.uploads.get(id);
        if upload.is_none_or(|upload| upload.repository != name) {
            let message = "blob upload unknown to registry";
            return PlayedAnswer::error_about(404, "BLOB_UPLOAD_UNKNOWN", message, &json!({}));
        }
        match request.method {
            Method::PATCH => self.append(request, (name, id)),
            Method::PUT => self.finish(request, (name, id)),
            Method::DELETE => {
                self.contents.uploads.remove(id);
                PlayedAnswer::new(204).header("docker-upload-uuid", id)
            }
            _ => self.progress(204, (name, id)),
        }
    }

    fn begin_upload(&mut self, request: &RecordedRequest, name: &str) -> PlayedAnswer {
        if let Some(digest) = request.parameter("mount") {
            let from = request.parameter("from");
            if from.is_none() && self.switches.refuses_anonymous_mounts {
                let message = "mount without a repository to mount from";
                return PlayedAnswer::error(400, "BLOB_UPLOAD_INVALID", message);
            }
            let found = from.and_then(|from| self.contents.blob_of(&from, &digest).cloned());
            if let Some(blob) = found.filter(|_| self.switches.mounts) {
                return self.stored(name, blob);
            }
        }
        let id = self.contents.begin_upload(name);
        self.progress(202, (name, &id))
    }

    fn append(&mut self, request: &RecordedRequest, (name, id): (&str, &str)) -> PlayedAnswer {
        let range = request.header("content-range");
        let upload = self.contents.uploads.get_mut(id).expect("it was looked up");
        let first = range.and_then(|range| range.split('-').next()?.parse::<usize>().ok());
        let is_gap = range.is_some() && first != Some(upload.bytes.len());
        let size = request.length;
        match self.switches.chunks {
            PlayedChunks::First if upload.chunks > 0 => {
                upload.chunks += 1;
                let last = first.unwrap_or(upload.bytes.len()) + size.max(1) - 1;
                return self
                    .progress(201, (name, id))
                    .replaced("range", format!("0-{last}"));
            }
            PlayedChunks::None if upload.chunks > 0 || range.is_some() => {
                let message = "chunked uploads are not supported";
                return PlayedAnswer::error(400, "UNSUPPORTED", message);
            }
            PlayedChunks::AtMost(most) if range.is_some() && size > most => {
                return self.out_of_range((name, id), "REQUESTED_RANGE_NOT_SATISFIABLE");
            }
            _ if is_gap && self.switches.checks_ranges => {
                return self.out_of_range((name, id), "RANGE_INVALID");
            }
            _ => {}
        }
        upload.chunks += 1;
        upload.bytes.extend_from_slice(&request.body);
        let status = match self.switches.chunks {
            PlayedChunks::First => 201,
            _ => 202,
        };
        let last = self.contents.uploads[id].bytes.len().max(1) - 1;
        self.progress(status, (name, id))
            .replaced("range", format!("0-{last}"))
    }

    fn out_of_range(&self, upload: (&str, &str), code: &str) -> PlayedAnswer {
        let error = PlayedAnswer::error(416, code, "invalid content range");
        let mut answer = self.progress(416, upload);
        answer.body = error.body;
        answer.headers.extend(error.headers);
        answer
    }

    fn finish(&mut self, request: &RecordedRequest, (name, id): (&str, &str)) -> PlayedAnswer {
        let refused = |detail| {
            let message = "provided digest did not match uploaded content";
            PlayedAnswer::error_about(400, "DIGEST_INVALID", message, &detail)
        };
        let Some(expected) = request.parameter("digest") else {
            return refused(json!("digest missing"));
        };
        if !is_digest(&expected) {
            return refused(json!("digest parsing failed"));
        }
        let upload = self.contents.uploads.get_mut(id).expect("it was looked up");
        upload.bytes.extend_from_slice(&request.body);
        if digest(&upload.bytes) != expected {
            return refused(json!({"Digest": expected, "Reason": {}}));
        }
        let upload = self.contents.uploads.remove(id).expect("it was looked up");
        self.stored(name, upload.bytes.into())
    }

    fn stored(&mut self, name: &str, blob: bytes::Bytes) -> PlayedAnswer {
        let digest = self.contents.put_blob(name, blob);
        PlayedAnswer::new(201)
            .header(
                "location",
                self.location(&format!("/v2/{name}/blobs/{digest}")),
            )
            .header("docker-content-digest", digest)
    }

    /// How far an upload is.
    fn progress(&self, status: u16, (name, id): (&str, &str)) -> PlayedAnswer {
        let length = self.contents.uploads[id].bytes.len();
        let mut path = format!("/v2/{name}/blobs/uploads/{id}");
        if self.switches.has_upload_state {
            path += &format!("?_state={}", state(id, length));
        }
        let range = match length {
            0 => self.switches.first_range.to_owned(),
            _ => format!("0-{}", length - 1),
        };
        PlayedAnswer::new(status)
            .header("location", self.location(&path))
            .header("docker-upload-uuid", id)
            .header("range", range)
    }
}

/// What binds the address of an upload to how far it is. It has to come back as it is.
fn state(id: &str, length: usize) -> String {
    format!("{id}.{length}==")
}
