//! The command line: one command per file. Messages go to standard error, data to standard output.

pub mod certs;
pub mod check;
pub mod explain;
pub mod gc;
pub mod health;
pub mod htpasswd;
pub mod import;
pub mod init;
pub mod manual;
pub mod reload;
pub mod retention;
pub mod run;
pub mod store;
pub mod tokens;
pub mod unlock;
pub mod upgrade;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::admin::control::client::{self, Addressees, ProcessReply};
use crate::admin::control::{self, ReplyStatus};
use crate::certs::library_error::with_sources;
use crate::config::problem::{Colour, Problems};
use crate::config::snapshot::Snapshot;
use crate::observe::colour::wants_colour;
use crate::registry::action::Actions;
use tokens::TokensCommand;

/// An authenticating TLS reverse proxy for container registries.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXAMPLES)]
struct Arguments {
    /// The directory that holds moorgate.toml and conf.d.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/etc/moorgate"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve in the foreground until SIGTERM or SIGINT; SIGHUP reloads the configuration.
    Run(run::RunOptions),
    /// Report all problems of the configuration, or print one line per domain.
    Check {
        #[command(flatten)]
        options: check::CheckOptions,
    },
    /// Add or change a user of an htpasswd file; the password is prompted for, or read from
    /// standard input.
    Htpasswd {
        /// The htpasswd file; created if missing.
        file: PathBuf,
        /// The user name.
        user: String,
        #[command(flatten)]
        options: htpasswd::HtpasswdOptions,
    },
    /// List the certificates of all domains.
    Certs {
        /// Print a JSON array instead.
        #[arg(long)]
        json: bool,
        #[command(subcommand)]
        command: Option<CertsCommand>,
    },
    /// Explain whether a user or a group may do something, and which access rule decides.
    Explain {
        /// The user name, @GROUP for its members, @authenticated for every user, or @anonymous for
        /// clients without a login.
        user: String,
        /// pull, push, overwrite, delete-tag, delete-manifest, list, catalog or mount-from; or all,
        /// for a line about each.
        action: Actions,
        /// The repository, with a tag if the action concerns one.
        #[arg(value_name = "REPO[:TAG]")]
        what: String,
        #[command(flatten)]
        options: explain::ExplainOptions,
    },
    /// Translate the configuration of another server.
    Import {
        #[command(subcommand)]
        command: import::ImportCommand,
    },
    /// Remove unreferenced content from a domain's store; moorgate may be running.
    Gc {
        /// The domain.
        domain: String,
        #[command(flatten)]
        options: gc::GcOptions,
    },
    /// Work on the stores of domains that keep the registry themselves.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Make the running moorgate reload its configuration; print the problems if it refuses.
    Reload {
        #[command(flatten)]
        processes: ProcessOptions,
    },
    /// Replace the running moorgate by a new process, of a new binary for example, without a lost
    /// connection; if the new one cannot serve, the old one serves on.
    Upgrade {
        #[command(flatten)]
        processes: ProcessOptions,
    },
    /// Reset the failed logins of a user, of an address, or of everybody.
    Unlock {
        #[command(flatten)]
        options: unlock::UnlockOptions,
        /// Only this domain of the user; all domains by default.
        #[arg(long)]
        domain: Option<String>,
        #[command(flatten)]
        processes: ProcessOptions,
    },
    /// List or revoke refresh tokens, which clients store in place of passwords.
    Tokens {
        #[command(subcommand)]
        command: TokensCommand,
    },
    /// Plan which tags the retention rules take away, take them away, and put them back.
    Retention {
        #[command(subcommand)]
        command: retention::RetentionCommand,
    },
    /// Say whether the running moorgate is ready, for the health checks of containers.
    Health {
        #[command(flatten)]
        processes: ProcessOptions,
    },
    /// Make a configuration with a domain and its first user; add a domain to an existing one.
    Init {
        /// The directory of the configuration, /etc/moorgate for example.
        directory: PathBuf,
        #[command(flatten)]
        options: Box<init::InitOptions>,
    },
    /// Write manual pages, one for each command.
    Manual {
        /// The directory that they go into.
        directory: PathBuf,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Compare all stored content with its digests; moorgate may be running.
    Verify(store::VerifyArguments),
    /// Print what the areas with quotas and the other repositories of a domain's store hold.
    Usage(store::UsageArguments),
}

#[derive(Debug, Subcommand)]
enum CertsCommand {
    /// Print the certificate of moorgate's own CA, for the trust stores of clients.
    Ca,
    /// Import the certificates, keys and ACME accounts of another server, so that nothing has to be
    /// ordered again.
    Import(certs::import::ImportArguments),
    /// Print the TXT records that validate a domain's names permanently, by dns-persist-01.
    Dns {
        /// The domain, as in its file.
        domain: String,
    },
    /// Make the running moorgate order a new certificate for a domain, due or not.
    Renew {
        /// The domain, as in its file.
        domain: String,
        #[command(flatten)]
        processes: ProcessOptions,
    },
}

/// Options of the commands for a running process.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ProcessOptions {
    /// Send the command to all processes that share the state directory, whatever their
    /// configuration.
    #[arg(long)]
    all_processes: bool,
}

impl ProcessOptions {
    fn addressees(self) -> Addressees {
        if self.all_processes {
            Addressees::OfState
        } else {
            Addressees::OfConfiguration
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  moorgate init /etc/moorgate --domain registry.example.com --acme ops@example.com --user ci
  moorgate run --config /etc/moorgate
  moorgate check --config /etc/moorgate
  moorgate htpasswd /etc/moorgate/ci.htpasswd alice
  echo \"$PASSWORD\" | moorgate htpasswd ci.htpasswd ci-bot
  moorgate certs ca > moorgate-ca.pem
  moorgate explain alice push base/app:v1 --domain docker-ci.example.com
  moorgate explain @release all base/app --exit-code
  moorgate gc docker-cache.example.com --dry-run
  moorgate store verify docker-ci.example.com --repair
  moorgate certs import /etc/letsencrypt --dry-run
  moorgate import caddy Caddyfile --dry-run
  moorgate reload --config /etc/moorgate
  moorgate upgrade --config /etc/moorgate
  moorgate unlock alice --domain docker-ci.example.com
  moorgate tokens revoke --user alice
  moorgate retention plan docker-cache.example.com

Exit status: 0 success, 1 failure, 2 wrong usage or configuration.";

/// The command line with all commands and options.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command of this process.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("moorgate: {}", with_sources(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(Arguments { config, command }: Arguments) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(options) => run::run(config, options),
        Command::Check { options } => check::run(&config, options),
        Command::Htpasswd {
            file,
            user,
            options,
        } => {
            htpasswd::run(&file, &user, options)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Certs { json, command } => certs(&config, json, command),
        Command::Explain {
            user,
            action,
            what,
            options,
        } => {
            let question = explain::AccessQuestion {
                user: &user,
                actions: action,
                target: &what,
            };
            explain(&config, question, &options)
        }
        Command::Import { command } => import::run(&config, command),
        Command::Gc { domain, options } => with_snapshot(&config, |snapshot| {
            gc::run(snapshot, &domain, options, &mut std::io::stdout().lock())
        }),
        Command::Store { command } => store(&config, &command),
        Command::Reload { processes } => reload::run(&config, processes),
        Command::Upgrade { processes } => upgrade::run(&config, processes),
        Command::Unlock {
            options,
            domain,
            processes,
        } => send_command(&config, processes, &unlock::reset(options, domain)),
        Command::Tokens { command } => tokens(&config, command),
        Command::Retention { command } => retention::run(&config, &command),
        Command::Health { processes } => health::run(&config, processes),
        Command::Init { directory, options } => init::run(&directory, *options),
        Command::Manual { directory } => {
            manual::run(&directory)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => completions(shell),
    }
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let out = &mut std::io::stdout();
    clap_complete::generate(shell, &mut self::command(), "moorgate", out);
    Ok(ExitCode::SUCCESS)
}

fn store(config: &Path, command: &StoreCommand) -> anyhow::Result<ExitCode> {
    let out = &mut std::io::stdout().lock();
    with_snapshot(config, |snapshot| match command {
        StoreCommand::Verify(arguments) => store::verify(snapshot, arguments, out),
        StoreCommand::Usage(arguments) => store::usage(snapshot, arguments, out),
    })
}

fn explain(
    config: &Path,
    question: explain::AccessQuestion<'_>,
    options: &explain::ExplainOptions,
) -> anyhow::Result<ExitCode> {
    let mut all_allow = true;
    let code = with_snapshot(config, |snapshot| {
        all_allow = explain::run(snapshot, question, options, &mut std::io::stdout().lock())?;
        Ok(())
    })?;
    if options.exit_code && !all_allow {
        return Ok(ExitCode::FAILURE);
    }
    Ok(code)
}

/// Runs a command that requires a valid configuration.
fn with_snapshot(
    config: &Path,
    run: impl FnOnce(&Snapshot) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    match crate::config::load(config) {
        Ok(loaded) => run(&loaded.snapshot).map(|()| ExitCode::SUCCESS),
        Err(problems) => {
            report_problems(&problems)?;
            Ok(ExitCode::from(2))
        }
    }
}

/// Sends a command to the running process and prints its reply, and which process it was.
fn send_command(
    config: &Path,
    processes: ProcessOptions,
    command: &control::ControlCommand,
) -> anyhow::Result<ExitCode> {
    let state = match crate::config::state(config) {
        Ok(state) => state,
        Err(problems) => {
            report_problems(&problems)?;
            return Ok(ExitCode::from(2));
        }
    };
    let replies = client::send(config, &state, processes.addressees(), command)?;
    let mut exit = ExitCode::SUCCESS;
    for ProcessReply { process, reply } in replies {
        eprintln!("{process}: {}", reply.text);
        match reply.outcome {
            ReplyStatus::Done => {}
            ReplyStatus::Failed => exit = ExitCode::FAILURE,
            ReplyStatus::Refused => exit = ExitCode::from(2),
        }
    }
    Ok(exit)
}

fn certs(config: &Path, json: bool, command: Option<CertsCommand>) -> anyhow::Result<ExitCode> {
    let out = std::io::stdout;
    match command {
        None => certs::list(config, json),
        Some(CertsCommand::Renew { domain, processes }) => send_command(
            config,
            processes,
            &control::ControlCommand::CertsRenew { domain },
        ),
        Some(CertsCommand::Ca) => certs::ca::run(config, &mut out()),
        Some(CertsCommand::Dns { domain }) => {
            with_snapshot(config, |snapshot| certs::dns(snapshot, &domain, &mut out()))
        }
        Some(CertsCommand::Import(arguments)) => with_snapshot(config, |snapshot| {
            certs::import::run(snapshot, &arguments, &mut out())
        }),
    }
}

fn tokens(config: &Path, command: TokensCommand) -> anyhow::Result<ExitCode> {
    match command {
        TokensCommand::List { json } => with_snapshot(config, |snapshot| {
            tokens::list(snapshot, json, &mut std::io::stdout().lock())
        }),
        TokensCommand::Revoke {
            which,
            domain,
            processes,
        } => send_command(config, processes, &tokens::revocation(which, domain)),
    }
}

/// Prints problems to standard error, in colour on a terminal.
pub(crate) fn report_problems(problems: &Problems) -> std::io::Result<()> {
    let colour = if wants_colour() {
        Colour::Always
    } else {
        Colour::Never
    };
    check::write_problems(problems, colour, &mut std::io::stderr().lock())
}
