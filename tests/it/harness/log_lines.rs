//! Reads the access log of a gateway in this process, line by line.

use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::Gateway;

/// Where the log's thread writes to.
struct Lines(Sender<String>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.lines()
            .for_each(|line| self.0.send(line.to_owned()).unwrap_or_default());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The lines of a gateway's access log, and the thread that writes them until the log is closed.
pub fn log_lines(gateway: &Gateway) -> (Receiver<String>, JoinHandle<()>) {
    let (sender, lines) = channel();
    let log = gateway.app.access_log().clone();
    let writer = std::thread::spawn(move || log.run(Lines(sender)));
    (lines, writer)
}
