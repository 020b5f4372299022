//! Job `end_sessions`: ends the transactions on blue that would delay the cut, and writes down, *before* it ends one, the statement that the
//! policy lets run again (field rule 8). A statement is written on blue so that it reaches green, and any later agent, like any other row.
//!
//! Only transactions that were open when the job began are its business. One refusal never stops the others, and no statement's text
//! leaves the database.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use proto::{
    job::JobFailure,
    jobs::{EndSessions, EndedSession, ResubmitPolicy, SessionsEnded},
    report::{Event, Session as Seen},
    side::{Side, SideIdentity},
};
use sha2::{Digest, Sha256};
use tokio_postgres::Row;

use super::{
    JobCx,
    memory::{keep, warm},
    servers::{Role, Session, address_list, each, identity, seen, sql},
    statement,
};
use crate::pg::catalog;

const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long an ended session may take to be gone, and its transaction to be known as aborted.
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// Sessions ended at once.
const WIDTH: usize = 8;
/// The server cuts a text at a character's border, so a cut one may be this much shorter than the limit.
const CUT_MARGIN: i64 = 4;
/// Settings of a role that do not change what a statement does.
const HARMLESS: &[&str] = &[
    "search_path",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
    "application_name",
    "work_mem",
    "maintenance_work_mem",
    "log_statement",
    "log_min_duration_statement",
];

#[derive(Clone)]
struct Candidate {
    seen: Seen,
    query_start: Option<Timestamp>,
    xid: Option<String>,
    query: String,
}

type Identity = (i32, Option<Timestamp>, Option<Timestamp>);

impl Candidate {
    fn identity(&self) -> Identity {
        (self.seen.pid, self.seen.backend_start, self.seen.xact_start)
    }
}

/// # Errors
/// When blue cannot be asked. What was ended until then is in the events.
pub async fn run(cx: JobCx, body: EndSessions) -> Result<SessionsEnded, JobFailure> {
    let blue = identity(&cx, Side::Blue)?;
    let admin = warm(&cx, blue, cx.dial.maintenance_database(), Role::Writer).await?;
    let row = admin.query_one(catalog::ACTIVITY_QUERY_SIZE, &[]).await.map_err(sql("reading a setting"))?;
    let size: i64 = row.get(0);
    let mut waiting = list(&admin, &body.allow_applications).await?;
    let mut done = SessionsEnded { ended: Vec::new(), remaining: Vec::new() };
    let began = cx.clock.mono();
    let drain = Duration::from_millis(body.drain_ms);
    loop {
        let drained = cx.clock.mono().since(began) >= drain;
        let due: Vec<Candidate>;
        (due, waiting) = waiting.into_iter().partition(|one| drained || one.seen.age_ms >= body.older_than_ms);
        for ended in each(due, WIDTH, |one| end(&cx, blue, &body.policies, size, one)).await? {
            match ended {
                Fate::Ended(session) => done.ended.push(session),
                Fate::Stays(session, reason) => done.remaining.push((session, reason)),
                Fate::WentByItself => {}
            }
        }
        if waiting.is_empty() {
            break;
        }
        cx.pause(LOOK_EVERY, "waiting for sessions to finish by themselves").await?;
        let now: HashMap<Identity, Candidate> =
            list(&admin, &body.allow_applications).await?.into_iter().map(|one| (one.identity(), one)).collect();
        waiting = waiting.iter().filter_map(|one| now.get(&one.identity()).cloned()).collect();
    }
    keep(&cx, blue, Role::Writer, admin);
    Ok(done)
}

async fn list(admin: &Session, allowed: &[String]) -> Result<Vec<Candidate>, JobFailure> {
    let rows = admin.query(catalog::CANDIDATE_SESSIONS, &[&allowed]).await.map_err(sql("listing sessions"))?;
    Ok(rows.iter().map(candidate).collect())
}

fn candidate(row: &Row) -> Candidate {
    Candidate { seen: seen(row), query: row.get(8), query_start: row.get(10), xid: row.get(11) }
}

enum Fate {
    Ended(EndedSession),
    WentByItself,
    Stays(Seen, String),
}

/// Ends one session: judge, write down, end it if it still is what it was, wait for its abort.
async fn end(
    cx: &JobCx,
    blue: &SideIdentity,
    policies: &[ResubmitPolicy],
    size: i64,
    one: Candidate,
) -> Result<Fate, JobFailure> {
    // A session without a database cannot be reached by a client; the maintenance database serves to end it.
    let database = one.seen.database.clone().unwrap_or_else(|| cx.dial.maintenance_database().to_owned());
    let session = match warm(cx, blue, &database, Role::Writer).await {
        Ok(session) => session,
        Err(error) => return Ok(Fate::Stays(one.seen, error.chain.join(": "))),
    };
    let judged = match judge(&session, policies, size, &one).await {
        Ok(policy) => {
            record(cx, blue, &session, policy, &one).await?.ok_or_else(|| "it could not be written down".into())
        }
        Err(Judged::Not(reason)) => Err(reason),
        Err(Judged::Failed(error)) => return Err(error),
    };
    let fate = match terminate(cx, blue, &session, &one).await {
        Ok(true) => settle(cx, &session, one.seen, judged).await?,
        Ok(false) => {
            forget(&session, judged.as_ref().ok()).await?;
            Fate::WentByItself
        }
        Err(reason) => {
            forget(&session, judged.as_ref().ok()).await?;
            Fate::Stays(one.seen, reason)
        }
    };
    keep(cx, blue, Role::Writer, session);
    if let Fate::Ended(ended) = &fate {
        (cx.events)(Event::SessionEnded {
            at: cx.clock.now(),
            session: ended.session.clone(),
            recorded: ended.recorded.clone(),
            not_resubmittable: ended.not_resubmittable.clone(),
        });
    }
    Ok(fate)
}

enum Judged {
    Not(String),
    Failed(JobFailure),
}

/// May the statement be run again under a policy entry? Otherwise why not.
async fn judge<'p>(
    session: &Session,
    policies: &'p [ResubmitPolicy],
    size: i64,
    one: &Candidate,
) -> Result<&'p ResubmitPolicy, Judged> {
    let not = |reason: &str| Err(Judged::Not(reason.to_owned()));
    let failed = |error| Judged::Failed(sql("judging a statement")(error));
    let (database, user) = (one.seen.database.as_deref().unwrap_or(""), one.seen.user.as_deref().unwrap_or(""));
    let entry = |policy: &&ResubmitPolicy| policy.database == database && policy.role == user;
    let Some(policy) = policies.iter().find(entry) else { return not("no policy names its database and role") };
    if !policy.client_does_not_retry {
        return not("its policy does not assert that the client does not retry");
    }
    if one.seen.state != "active" {
        return not(&format!("the session is {}, its statements are over", one.seen.state));
    }
    if one.query_start.is_none() || one.query_start != one.seen.xact_start {
        return not("it is not the first statement of its transaction (xact_start differs from query_start)");
    }
    if one.xid.is_none() {
        return not("its transaction had changed nothing yet (no transaction id)");
    }
    if i64::try_from(one.query.len()).unwrap_or(i64::MAX) + CUT_MARGIN >= size {
        return not("its text is cut off");
    }
    let statement = statement::classify(&one.query).map_err(|refusal| Judged::Not(refusal.to_string()))?;
    let temporary = session.query(catalog::TEMPORARY_RELATIONS, &[]).await.map_err(failed)?;
    if temporary.iter().any(|row| statement.words.iter().any(|word| word.to_lowercase() == row.get::<_, &str>(0))) {
        return not("it may use a temporary table");
    }
    let own = session.query(catalog::ROLE_SETTINGS, &[&user, &database, &true]).await.map_err(failed)?;
    let shared = session.query(catalog::ROLE_SETTINGS, &[&user, &database, &false]).await.map_err(failed)?;
    let text = |row: &Row| row.get::<_, String>(0);
    let settings = (own.iter().map(text).collect::<Vec<_>>(), shared.iter().map(text).collect::<Vec<_>>());
    match unlike(policy, &settings.0, &settings.1) {
        Some(reason) => not(&reason),
        None => Ok(policy),
    }
}

/// Does the role carry settings under which its statements mean something else than under the policy's? `own` are the role's, `shared`
/// the database's and the server's; the strongest come first.
fn unlike(policy: &ResubmitPolicy, own: &[String], shared: &[String]) -> Option<String> {
    let pairs = |settings: &[String]| -> Vec<(String, String)> {
        settings
            .iter()
            .filter_map(|text| text.split_once('='))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect()
    };
    let (own, shared) = (pairs(own), pairs(shared));
    if let Some((name, _)) = own.iter().find(|(name, _)| !HARMLESS.contains(&name.as_str())) {
        return Some(format!("its role carries the setting {name}, unlike the policy's"));
    }
    let path = own
        .iter()
        .chain(&shared)
        .find(|(name, _)| name == "search_path")
        .map_or("\"$user\", public", |(_, value)| value);
    (statement::search_path(path) != statement::search_path(&policy.search_path))
        .then(|| format!("its search_path is {path}, unlike the policy's"))
}

/// Writes the statement down on blue and gives its key; `None` when the server that was reached is not blue.
async fn record(
    cx: &JobCx,
    blue: &SideIdentity,
    session: &Session,
    policy: &ResubmitPolicy,
    one: &Candidate,
) -> Result<Option<String>, JobFailure> {
    let doing = "writing a statement down before its session is ended";
    let next: String = session.query_one(catalog::NEXT_XID, &[]).await.map_err(sql(doing))?.get(0);
    let xid = one.xid.as_deref().and_then(|xid| xid.parse().ok());
    let Some(xid) = xid.zip(next.parse().ok()).and_then(|(xid, next)| statement::widen(xid, next)) else {
        return Ok(None);
    };
    let key = key_of(blue, one, xid);
    let (members, major) = (address_list(cx, blue), i32::try_from(blue.major).unwrap_or(0));
    let database = session.database.as_str();
    let written = session
        .execute(
            catalog::RECORD_STATEMENT,
            &[
                &key,
                &database,
                &policy.role,
                &policy.search_path,
                &one.query,
                &xid.to_string(),
                &one.seen.pid,
                &members,
                &major,
            ],
        )
        .await
        .map_err(sql(doing))?;
    // Nothing written: either it is there from an earlier try of this job, or this is not blue and ending it is refused as well.
    let there =
        written == 1 || session.query_opt(catalog::STATEMENT_THERE, &[&key]).await.map_err(sql(doing))?.is_some();
    Ok(there.then_some(key))
}

/// The same statement of the same transaction always has the same key.
fn key_of(blue: &SideIdentity, one: &Candidate, xid: u64) -> String {
    let text = format!(
        "{}|{}|{:?}|{:?}|{xid}",
        blue.cluster_resource_id, one.seen.pid, one.seen.backend_start, one.seen.xact_start
    );
    Sha256::digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Ends the session if it still is what it was. `Ok(false)`: it is not. `Err`: the server refused.
async fn terminate(cx: &JobCx, blue: &SideIdentity, session: &Session, one: &Candidate) -> Result<bool, String> {
    let (members, major) = (address_list(cx, blue), i32::try_from(blue.major).unwrap_or(0));
    let rows = session
        .query(
            catalog::END_SESSION,
            &[&one.seen.pid, &one.seen.backend_start, &one.seen.xact_start, &one.xid, &members, &major],
        )
        .await
        .map_err(|error| sql("ending a session")(error).chain.join(": "))?;
    match rows.first().map(|row| row.get::<_, bool>(0)) {
        Some(true) => Ok(true),
        Some(false) => Err("the server could not signal it".into()),
        None => Ok(false),
    }
}

async fn forget(session: &Session, key: Option<&String>) -> Result<(), JobFailure> {
    let Some(key) = key else { return Ok(()) };
    session.execute(catalog::FORGET_STATEMENT, &[key]).await.map(drop).map_err(sql("forgetting a statement"))
}

/// After the session was told to end: waits until it is gone and, where its statement was written down, until its abort is proven.
async fn settle(cx: &JobCx, session: &Session, seen: Seen, judged: Result<String, String>) -> Result<Fate, JobFailure> {
    let doing = "waiting for an ended session to be gone";
    if let Ok(key) = &judged {
        session.execute(catalog::PROVE_ABORT, &[key, &None::<String>]).await.map_err(sql(doing))?;
    }
    let began = cx.clock.mono();
    loop {
        let row =
            session.query_one(catalog::STILL_THERE, &[&seen.pid, &seen.backend_start]).await.map_err(sql(doing))?;
        if !row.get::<_, bool>(0) {
            break;
        }
        if cx.clock.mono().since(began) >= GONE_WITHIN {
            return Ok(Fate::Stays(seen, "it was told to end and is still there".into()));
        }
        cx.pause(LOOK_EVERY, doing).await?;
    }
    let key = match judged {
        Ok(key) => key,
        Err(reason) => {
            return Ok(Fate::Ended(EndedSession { session: seen, recorded: None, not_resubmittable: Some(reason) }));
        }
    };
    let reason = prove(cx, session, &key, began).await?;
    let recorded = reason.is_none().then_some(key);
    Ok(Fate::Ended(EndedSession { session: seen, recorded, not_resubmittable: reason }))
}

/// Polls the proof of abort. Gives why the statement is not to be run again; an open proof leaves that to the resubmission.
async fn prove(
    cx: &JobCx,
    session: &Session,
    key: &str,
    began: runtime::clock::Mono,
) -> Result<Option<String>, JobFailure> {
    let doing = "proving the abort of an ended transaction";
    loop {
        let row = session.query_opt(catalog::RECORDED_STATUS, &[&key]).await.map_err(sql(doing))?;
        match row.and_then(|row| row.get::<_, Option<String>>(0)).as_deref() {
            Some("aborted") => {
                session.execute(catalog::PROVE_ABORT, &[&key, &Some("aborted")]).await.map_err(sql(doing))?;
                return Ok(None);
            }
            Some("committed") => {
                session.execute(catalog::FORGET_STATEMENT, &[&key]).await.map_err(sql(doing))?;
                return Ok(Some("its transaction had committed before it was ended".into()));
            }
            _ if cx.clock.mono().since(began) >= GONE_WITHIN => return Ok(None),
            _ => cx.pause(LOOK_EVERY, doing).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_whose_settings_differ_from_the_policy_is_refused() {
        let policy = ResubmitPolicy {
            database: "orders".into(),
            role: "app".into(),
            search_path: "\"$user\", public".into(),
            client_does_not_retry: true,
        };
        let case = |own: &[&str], shared: &[&str]| {
            let owned = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            unlike(&policy, &owned(own), &owned(shared))
        };
        assert_eq!(case(&[], &[]), None);
        assert_eq!(case(&["statement_timeout=5s", "search_path=\"$user\", public"], &["search_path=other"]), None);
        assert!(case(&["TimeZone=Europe/Berlin"], &[]).unwrap().contains("timezone"));
        assert!(case(&["search_path=app"], &[]).unwrap().contains("search_path is app"));
        assert!(case(&[], &["search_path=app"]).is_some());
    }
}
