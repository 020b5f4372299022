//! The agents' role as a user makes it: `deploy/sql/agent_role.sql`, run with psql as the master user in every database, and
//! nothing beside it. So every upgrade on the stage also shows that its rights are enough. It must grant nothing itself.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use lab::Lab;
use lab::demo::schema;
use lab::demo::session::Login;
use lab::demo::tempo::Tempo;
use lab::install;
use tokio::process::Command;

use super::START;

/// What it is called; another than the lab's own role, which has the lab's own rights.
pub const NAME: &str = "pilot_by_script";
/// Its password.
pub const PASSWORD: &str = "canary-of-the-role";

/// Runs the script everywhere and gives the role a password, with the cure that the script names for servers of 16 and later.
///
/// # Errors
/// With what psql said.
pub async fn make(lab: &Lab, master: &Login, major: u32, tempo: &Tempo) -> anyhow::Result<()> {
    let databases = [&["postgres"][..], &schema::DATABASES[..]].concat();
    if major >= 16 {
        // Nobody but a superuser gives away the master user's own role there: the script says what to do instead.
        let owner = "create role postgres_owner; grant postgres_owner to current_user with inherit true, set true; \
                     alter database postgres owner to postgres_owner";
        psql(lab, &master.database("postgres"), major, &["-c", owner], tempo).await?;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/sql/agent_role.sql");
    let (role, file) = (format!("role={NAME}"), script.display().to_string());
    for database in &databases {
        let said = psql(lab, &master.database(database), major, &["-v", &role, "-f", &file], tempo).await?;
        ensure!(said.contains("(0 rows)"), "the script says of {database} what it still misses: {said}");
    }
    let password = format!("set password_encryption = 'md5'; alter role {NAME} password '{PASSWORD}'");
    psql(lab, &master.database("postgres"), major, &["-c", &password], tempo).await?;
    // A row of the spec's own: whose statements may run again is granted by whoever lists it there.
    psql(lab, master, major, &["-c", &format!("grant {} to {NAME}", schema::BATCH)], tempo).await.map(drop)
}

async fn psql(lab: &Lab, login: &Login, major: u32, args: &[&str], tempo: &Tempo) -> anyhow::Result<String> {
    let program = install::cache_dir().join("postgresql").join(major.to_string()).join("bin/psql");
    let mut command = Command::new(program);
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", &login.host, "-p", &login.port.to_string()]);
    command.args(["-U", &login.user, "-d", &login.database]).args(args);
    command.env("PGPASSWORD", &login.password).envs(lab.environment()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tempo.within(START, command.output()).await.context("psql did not end")?.context("starting psql")?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "psql {} in {}: {said}", args.join(" "), login.database);
    Ok(said)
}
