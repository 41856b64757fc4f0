//! `/health`, `/livez` and `/readyz` (`server/etcdserver/api/etcdhttp/health.go`).

use apply::{AlarmKind, RangeOp, SortOrder, SortTarget};
use http::{Response, StatusCode};
use types::KeyRange;

use super::{Body, Query, TEXT, error, respond, text};
use crate::v3rpc::{Consistency, Credentials};
use crate::{EtcdServer, RequestError};

/// One check of `/livez` or `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

/// The checks that a path stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checks {
    endpoint: &'static str,
    checks: Vec<Check>,
    /// Whether the path is the endpoint itself, where checks can be excluded.
    excludable: bool,
}

const LIVEZ: [Check; 1] = [Check::SerializableRead];
const READYZ: [Check; 4] = [
    Check::DataCorruption,
    Check::SerializableRead,
    Check::LinearizableRead,
    Check::NonLearner,
];

/// The checks at `path`, if there are any.
pub(super) fn checks_at(path: &str) -> Option<Checks> {
    for (endpoint, all) in [("livez", &LIVEZ[..]), ("readyz", &READYZ[..])] {
        let Some(rest) = path
            .strip_prefix('/')
            .and_then(|path| path.strip_prefix(endpoint))
        else {
            continue;
        };
        if rest.is_empty() {
            return Some(Checks {
                endpoint,
                checks: all.to_vec(),
                excludable: true,
            });
        }
        let name = rest.strip_prefix('/')?;
        let check = all.iter().copied().find(|check| check.name() == name)?;
        return Some(Checks {
            endpoint,
            checks: vec![check],
            excludable: false,
        });
    }
    None
}

impl Check {
    const fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    /// Runs the check; the error is what is shown.
    async fn run(self, server: &EtcdServer) -> Result<(), String> {
        match self {
            Self::DataCorruption => {
                let is_corrupt = alarms_here(server).any(|kind| kind == AlarmKind::Corrupt);
                if is_corrupt {
                    return Err("alarm activated: CORRUPT".to_owned());
                }
                Ok(())
            }
            Self::SerializableRead => read(server, Consistency::Serializable).await,
            Self::LinearizableRead => read(server, Consistency::Linearizable).await,
            Self::NonLearner if server.is_learner() => Err("not supported for learner".to_owned()),
            Self::NonLearner => Ok(()),
        }
    }
}

/// Runs the checks of `/livez` or `/readyz`.
pub(super) async fn run(server: &EtcdServer, checks: &Checks, query: &Query<'_>) -> Response<Body> {
    let excluded = if checks.excludable {
        query.all("exclude")
    } else {
        Vec::new()
    };
    let mut outcomes = Vec::new();
    for check in &checks.checks {
        if excluded.contains(&check.name()) {
            continue;
        }
        let outcome = check.run(server).await;
        server
            .metrics()
            .health_checked(checks.endpoint, check.name(), outcome.is_ok());
        outcomes.push((check.name(), outcome));
    }
    checks_response(&outcomes, query.has("verbose"))
}

fn checks_response(outcomes: &[(&str, Result<(), String>)], verbose: bool) -> Response<Body> {
    let lines = outcomes.iter().map(|(name, outcome)| match outcome {
        Ok(()) => format!("[+]{name} ok\n"),
        Err(reason) => format!("[-]{name} failed: {reason}\n"),
    });
    let lines: String = lines.collect();
    if outcomes.iter().any(|(_, outcome)| outcome.is_err()) {
        tracing::error!(reason = lines, "health check error");
        return error(StatusCode::SERVICE_UNAVAILABLE, &lines);
    }
    let body = if verbose {
        format!("{lines}ok\n")
    } else {
        "ok\n".to_owned()
    };
    text(body)
}

/// Answers `/health`.
pub(super) async fn health(server: &EtcdServer, query: &Query<'_>) -> Response<Body> {
    let consistency = match query.first("serializable") {
        Some("true") => Consistency::Serializable,
        _ => Consistency::Linearizable,
    };
    let problem = problem(server, &query.all("exclude"), consistency).await;
    server.metrics().health_answered(problem.is_none());
    health_response(problem.as_deref(), &server.notice())
}

/// What is wrong, by alarms, leader and a read, in this order.
async fn problem(
    server: &EtcdServer,
    excluded: &[&str],
    consistency: Consistency,
) -> Option<String> {
    for kind in alarms_here(server) {
        let name = kind.name();
        if !excluded.contains(&name) {
            return Some(format!("ALARM {name}"));
        }
    }
    if consistency == Consistency::Linearizable && server.node().status().leader.is_none() {
        return Some("RAFT NO LEADER".to_owned());
    }
    let read = read(server, consistency).await;
    read.err().map(|reason| format!("RANGE ERROR:{reason}"))
}

/// The alarms that are a reason to go elsewhere: not those that are another member's own affair.
fn alarms_here(server: &EtcdServer) -> impl Iterator<Item = AlarmKind> + use<> {
    let of_all = server.views().alarms.of_the_cluster();
    let own = server.is_quarantined().then_some(AlarmKind::Corrupt);
    of_all.into_iter().map(|alarm| alarm.kind).chain(own)
}

/// Differs from etcd: a member that serves may have something to say too, if it was asked to watch it (an old
/// backup).
fn health_response(problem: Option<&str>, notice: &str) -> Response<Body> {
    let Some(reason) = problem else {
        let reason = serde_json::Value::from(notice);
        let body = format!(r#"{{"health":"true","reason":{reason}}}"#);
        return respond(StatusCode::OK, TEXT, body);
    };
    let body = serde_json::json!({ "health": "false", "reason": reason }).to_string();
    tracing::warn!(output = body, "/health error");
    error(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// Reads what etcd's checks read: one key of an empty range.
async fn read(server: &EtcdServer, consistency: Consistency) -> Result<(), String> {
    let range = RangeOp {
        keys: KeyRange::Single(bytes::Bytes::new()),
        at: None,
        limit: Some(1),
        sort_target: SortTarget::Key,
        sort_order: SortOrder::None,
        keys_only: true,
        count_only: false,
        min_mod_revision: None,
        max_mod_revision: None,
        min_create_revision: None,
        max_create_revision: None,
    };
    let read = server
        .read_range(&Credentials::Member, range, consistency)
        .await;
    read.map(|_| ())
        .map_err(|error: RequestError| error.code().text().to_owned())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn shown(response: Response<Body>) -> (u16, String) {
        let status = response.status().as_u16();
        let body = futures_util::FutureExt::now_or_never(response.into_body().collect());
        let body = body.unwrap().unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn health_bodies_are_etcds() {
        let healthy = (200, r#"{"health":"true","reason":""}"#.to_owned());
        assert_eq!(shown(health_response(None, "")), healthy);
        let told = r#"{"health":"true","reason":"BACKUP \"a\" is old"}"#.to_owned();
        let shown_told = shown(health_response(None, r#"BACKUP "a" is old"#));
        assert_eq!(shown_told, (200, told));
        let full = (
            503,
            "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n".to_owned(),
        );
        assert_eq!(
            shown(health_response(Some("ALARM NOSPACE"), "backup")),
            full
        );
    }

    #[test]
    fn check_bodies_are_etcds() {
        let fine = [("serializable_read", Ok(()))];
        assert_eq!(
            shown(checks_response(&fine, false)),
            (200, "ok\n".to_owned())
        );
        let verbose = (200, "[+]serializable_read ok\nok\n".to_owned());
        assert_eq!(shown(checks_response(&fine, true)), verbose);
        let learner = [
            ("data_corruption", Ok(())),
            ("non_learner", Err("not supported for learner".to_owned())),
        ];
        let failed = "[+]data_corruption ok\n[-]non_learner failed: not supported for learner\n\n";
        assert_eq!(
            shown(checks_response(&learner, false)),
            (503, failed.to_owned())
        );
    }

    #[test]
    fn paths_name_checks() {
        let names = |path: &str| {
            checks_at(path).map(|it| {
                it.checks
                    .iter()
                    .map(|check| check.name())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(names("/livez").unwrap(), ["serializable_read"]);
        assert_eq!(names("/readyz").unwrap().len(), 4);
        assert_eq!(names("/readyz/non_learner").unwrap(), ["non_learner"]);
        for path in [
            "/livez/",
            "/livez/non_learner",
            "/livezz",
            "/healthz",
            "livez",
        ] {
            assert_eq!(names(path), None, "{path}");
        }
    }
}
