//! nginx in front, which sends no server name to an upstream unless it is told to.

use std::fs;
use std::net::TcpStream;

use super::fixture::{Domain, RegistriesFixture};
use super::ports::free_port;
use super::process::{Process, run, tool, until};

impl RegistriesFixture {
    /// Starts nginx in front of the listener that both domains share.
    fn start_nginx(&self, port: u16) -> Process {
        let (directory, upstream) = (self.path(), self.ci.by_name());
        let directory = directory.display();
        // Everything but `Host` is as nginx has it by default.
        let settings = format!(
            "user root;\ndaemon off;\nmaster_process off;\npid {directory}/nginx.pid;\n\
             error_log {directory}/nginx.log;\nevents {{}}\nhttp {{\n\
             access_log off;\nclient_body_temp_path {directory}/nginx-body;\n\
             proxy_temp_path {directory}/nginx-proxy;\nfastcgi_temp_path {directory}/nginx-fastcgi;\n\
             uwsgi_temp_path {directory}/nginx-uwsgi;\nscgi_temp_path {directory}/nginx-scgi;\n\
             server {{\nlisten 127.0.0.1:{port};\nlocation / {{\n\
             proxy_pass https://{upstream};\nproxy_set_header Host $http_host;\n}}\n}}\n}}\n"
        );
        let file = self.path().join("nginx.conf");
        fs::write(&file, settings).unwrap();
        let mut command = self.machine.command(&tool("nginx", "nginx"));
        command.arg("-e").arg(self.path().join("nginx.log"));
        command.arg("-c").arg(file);
        let mut nginx = Process::start("nginx", command, &self.path().join("logs"));
        nginx.becomes("listening", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        nginx
    }

    /// The status of a request of a domain's own user through nginx.
    fn status_through(&self, port: u16, host: &Domain, user: &Domain) -> String {
        let name = host.by_name();
        let name = name.split(':').next().unwrap();
        let mut curl = self.curl();
        curl.args(["--output", "/dev/null", "--write-out", "%{http_code}"]);
        curl.arg("--user");
        curl.arg(format!("{}:{}", user.user, user.password));
        run(curl.arg(format!("http://{name}:{port}/v2/")), "").succeeded()
    }
}

#[test]
fn nginx_that_sends_no_server_name_is_refused_with_a_line_or_trusted() {
    let fixture = RegistriesFixture::of_stores();
    let port = free_port();
    let _nginx = fixture.start_nginx(port);
    let (ci, cache) = (&fixture.ci, &fixture.cache);
    assert_eq!(fixture.status_through(port, ci, ci), "502");
    let line = "TLS without a server name refused peer=127.0.0.1";
    until("the refusal is logged", || {
        fixture.moorgate.stderr().contains(line)
    });
    let file = fixture.path().join("config/moorgate.toml");
    let settings = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        format!("trusted_proxies = [\"127.0.0.1\"]\n{settings}"),
    )
    .unwrap();
    fixture.cli(&["reload"]).succeeded();
    for (host, user, status) in [
        (ci, ci, "200"),
        (cache, cache, "200"),
        (ci, cache, "401"),
        (cache, ci, "401"),
    ] {
        assert_eq!(fixture.status_through(port, host, user), status);
    }
}
