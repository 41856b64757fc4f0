//! The `kvorum` program: etcd's command line on top of the library.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use kvorum::config::env::Notice;
use kvorum::config::flags::{self, Action, FlagErrors};
use kvorum::config::{Problem, env, file};
use kvorum::error::chain;
use kvorum::{Config, Fatal, Kvorum, Options, logging, memory};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use types::{SystemClock, Url};

/// glibc's allocator costs a third more per request and keeps more memory (measured on a server
/// that answers from memory).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A command line that cannot be read; etcd's status.
const EXIT_USAGE: u8 = 2;

/// How long to wait, after everything has been stopped, for what has not.
const LEFT_OVER_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a member that cannot go on may take to stop.
const FAILED_STOP_TIME_MAX: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into())
        .collect();
    if let Some(status) = kvorum::tools::run(&arguments) {
        return status;
    }
    match flags::parse(&arguments) {
        Ok(Action::Help) => print(&flags::help()),
        Ok(Action::Version) => print(&version()),
        Ok(Action::Run { options, given }) => match config_file(&options) {
            Some(path) => run_from_file(&path),
            None => run_from_flags(*options, &given),
        },
        Err(errors) => refuse_flags(errors),
    }
}

/// etcd's four lines, and ours.
fn version() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "etcd Version: {}\nGit SHA: Not provided\nGo Version: none (Rust)\nGo OS/Arch: {}/{arch}\n\
         kvorum Version: {}\n",
        api::version::ETCD_VERSION,
        std::env::consts::OS,
        api::version::KVORUM_VERSION,
    )
}

/// The configuration file, if there is one; a flag counts more than its variable.
fn config_file(options: &Options) -> Option<String> {
    let flag = options.config_file.clone();
    let path = if flag.is_empty() {
        std::env::var(env::CONFIG_FILE).unwrap_or_default()
    } else {
        flag
    };
    (!path.is_empty()).then_some(path)
}

fn run_from_file(path: &str) -> ExitCode {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            complain(&format!("--config-file: cannot read {path}: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let options = match file::parse(&text) {
        Ok(options) => options,
        Err(problems) => return refuse(&problems),
    };
    match options.validate() {
        Ok(config) => run(config, || {
            tracing::info!(
                path,
                "loaded server configuration, other configuration command line flags and \
                 environment variables will be ignored if provided",
            );
        }),
        Err(error) => refuse(&error.problems),
    }
}

fn run_from_flags(mut options: Options, given: &[&'static str]) -> ExitCode {
    let (notices, mut problems) = env::fill(&mut options, given, std::env::vars());
    match options.validate() {
        Ok(config) if problems.is_empty() => run(config, || tell(&notices)),
        Ok(_) => refuse(&problems),
        Err(error) => {
            problems.extend(error.problems);
            refuse(&problems)
        }
    }
}

/// Runs a member; `tell` logs how it came to its configuration.
fn run(config: Config, tell: impl FnOnce()) -> ExitCode {
    if let Err(error) = logging::install(&config.log, Arc::new(SystemClock)) {
        complain(&chain(&error));
        return ExitCode::FAILURE;
    }
    tell();
    raise_open_files_limit();
    if config.memory_mlock
        && let Err(error) = memory::lock()
    {
        tracing::error!(error = chain(&error), "failed to start etcd");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "failed to start etcd");
            return ExitCode::FAILURE;
        }
    };
    let status = runtime.block_on(serve(config));
    // A start that a signal broke off may still be reading; nobody waits for it.
    runtime.shutdown_timeout(LEFT_OVER_TIME_MAX);
    status
}

/// Runs a member until a signal or a failure.
async fn serve(config: Config) -> ExitCode {
    // Before anything else, so that no signal is missed.
    let (mut terminate, mut interrupt) = match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "failed to start etcd");
            return ExitCode::FAILURE;
        }
    };
    let started = tokio::select! {
        started = Kvorum::start(config) => started,
        name = either(&mut terminate, &mut interrupt) => {
            tracing::info!(signal = name, "received signal; shutting down");
            return ExitCode::SUCCESS;
        }
    };
    let member = match started {
        Ok(member) => member,
        Err(error) => {
            tracing::error!(error = chain(&error), "failed to start etcd");
            return ExitCode::FAILURE;
        }
    };
    let failure = tokio::select! {
        failure = live(&member) => Some(failure),
        name = either(&mut terminate, &mut interrupt) => {
            tracing::info!(signal = name, "received signal; shutting down");
            None
        }
    };
    if failure.is_some() {
        end_anyway();
    }
    tokio::select! {
        () = member.stop() => {}
        // Whoever asks twice does not want to wait.
        _name = either(&mut terminate, &mut interrupt) => return ExitCode::FAILURE,
    }
    match failure {
        None => ExitCode::SUCCESS,
        // As etcd does: whoever starts it again finds that it cannot take part.
        Some(failure) if failure.is_removed() => ExitCode::SUCCESS,
        Some(failure) => {
            tracing::error!(error = chain(&*failure), "etcd had to stop");
            // Everything has been stopped. What is left is dropped by nobody: sled may wait for a disk
            // that has failed.
            std::process::exit(1)
        }
    }
}

/// Ends the process when its member, which has failed, does not stop: sled may wait for a disk that has failed for
/// ever, and who waits for sled may hold every thread of the runtime. Nothing is lost: what counts is what the
/// disk has.
fn end_anyway() {
    let watch = std::thread::Builder::new().name("undertaker".to_owned());
    let watching = watch.spawn(|| {
        let (_nobody_sends, nothing) = mpsc::channel::<()>();
        let _elapsed = nothing.recv_timeout(FAILED_STOP_TIME_MAX);
        tracing::error!("the member does not stop; the process ends");
        std::process::exit(1)
    });
    if let Err(error) = watching {
        tracing::error!(%error, "nobody watches over the end");
    }
}

/// Says when the member is ready, and waits until it cannot go on.
async fn live(member: &Kvorum) -> Arc<Fatal> {
    let reason = match member.wait_ready().await {
        Err(reason) => reason,
        Ok(()) => {
            notify_systemd();
            greet(member);
            member.failed().await
        }
    };
    if reason.is_removed() {
        // etcd's lines; tools look for the first.
        let error = "the member has been permanently removed from the cluster";
        tracing::warn!(error, "server error");
        tracing::warn!("data-dir used by this member must be removed");
    }
    reason
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _signal = terminate.recv() => "terminated",
        _signal = interrupt.recv() => "interrupt",
    }
}

fn notify_systemd() {
    // Without systemd this does nothing; a failure is not worth stopping for.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "failed to notify init daemon");
    }
}

/// Shows a person where the member is and how to try it.
fn greet(member: &Kvorum) {
    let urls = |urls: &[Url]| urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
    if !io::stdout().is_terminal() {
        return;
    }
    let clients = urls(member.client_urls());
    print(&format!(
        "\nkvorum listens for clients on {clients} and for peers on {}. Try it:\n\n  \
         etcdctl --endpoints={clients} put foo bar\n\n",
        urls(member.peer_urls()),
    ));
}

fn tell(notices: &[Notice]) {
    for notice in notices {
        match notice {
            Notice::Used { variable, value } => tracing::info!(
                "variable-name" = variable,
                "variable-value" = value,
                "recognized and used environment variable",
            ),
            Notice::Shadowed { variable } => tracing::warn!(
                "environment-variable" = variable,
                "environment variable is shadowed by corresponding command-line flag",
            ),
            Notice::Unrecognized { variable, value } => tracing::warn!(
                "environment-variable" = format!("{variable}={value}"),
                "unrecognized environment variable",
            ),
        }
    }
}

/// Every client is a file; the soft limit is often 1024.
fn raise_open_files_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Tells all that is wrong with the command line, and with the environment and the values that could
/// be read.
fn refuse_flags(mut errors: FlagErrors) -> ExitCode {
    let is_usage = errors.is_usage();
    complain(&errors.to_string());
    let (_notices, mut problems) = env::fill(&mut errors.options, &errors.given, std::env::vars());
    if let Err(error) = errors.options.validate() {
        problems.extend(error.problems);
    }
    let status = refuse(&problems);
    if !is_usage {
        return status;
    }
    complain(flags::USAGE);
    ExitCode::from(EXIT_USAGE)
}

fn refuse(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        complain(&problem.to_string());
    }
    ExitCode::FAILURE
}

fn complain(text: &str) {
    // There is nowhere to say that standard error is closed.
    writeln!(io::stderr(), "{text}").ok();
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_closed) => ExitCode::FAILURE,
    }
}
