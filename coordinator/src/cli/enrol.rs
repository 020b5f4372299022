//! `pilot agents enrol`: a certificate from a small authority of one's own, in a folder as cert-manager would mount it. Works
//! without a coordinator.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use proto::identity::{Identity, Role, is_operator_name};
use proto::ids::{AgentId, ClusterArn};
use runtime::clock::Clock;

use super::{Exit, Fault, print};
use crate::enrol::{Authority, EnrolError, Subject, Validity, Withdraw};

fn fault(error: &EnrolError) -> Fault {
    let text = runtime::supervision::chain(error);
    match error {
        EnrolError::Name(_) | EnrolError::Authority { .. } | EnrolError::Foreign { .. } | EnrolError::Serial(_) => {
            Fault::refused(text)
        }
        _ => Fault::failed(text),
    }
}

const EXAMPLES_OF_REVOKE: &str = "\
Examples:
  pilot agents revoke --ca ca --crl ca/ca.crl --certificate alice/tls.crt
  pilot agents revoke --ca ca --crl ca/ca.crl --serial 4a:01";

const EXAMPLES_OF_ENROL: &str = "\
Examples:
  pilot agents enrol --ca ca --out coordinator --coordinator-name pilot.example.com,10.0.0.7
  pilot agents enrol --ca ca --out agent-1 --cluster arn:aws:rds:us-east-1:123456789012:cluster:orders --agent agent-1
  pilot agents enrol --ca ca --out alice --operator alice --role operate,approve --days 30";

/// `pilot agents revoke`: takes certificates of that authority back.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES_OF_REVOKE, group = ArgGroup::new("which").required(true).multiple(true).args(["certificate", "serial"]))]
pub(super) struct Revoke {
    /// The authority's folder, with ca.crt and ca.key
    #[arg(long, value_name = "FOLDER")]
    ca: PathBuf,
    /// The list of withdrawn certificates, made where it is missing: tls.crl_file of the coordinators
    #[arg(long, value_name = "FILE")]
    crl: PathBuf,
    /// A certificate to take back: its tls.crt
    #[arg(long, value_name = "FILE")]
    certificate: Vec<PathBuf>,
    /// The serial number of a certificate to take back, as `pilot agents enrol` has said it
    #[arg(long, value_name = "HEX")]
    serial: Vec<String>,
}

impl Revoke {
    pub(super) fn run(self) -> Result<Exit, Fault> {
        if !self.ca.join("ca.key").exists() {
            return Err(Fault::refused(format!("{} has no ca.key", self.ca.display())));
        }
        let which = self.certificate.into_iter().map(Withdraw::File);
        let which: Vec<Withdraw> = which.chain(self.serial.into_iter().map(Withdraw::Serial)).collect();
        let now = Clock::system().now();
        let authority = Authority::open_or_make(&self.ca, now).map_err(|error| fault(&error))?;
        let listed = authority.withdraw(&self.crl, &which, now).map_err(|error| fault(&error))?;
        print(&format!("{}: {listed} withdrawn", self.crl.display()));
        Ok(Exit::Done)
    }
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES_OF_ENROL, group = ArgGroup::new("whom").required(true).args(["cluster", "operator", "coordinator_name"]))]
pub(super) struct Enrol {
    /// The authority's folder, with ca.crt and ca.key; both are made where they are missing. Keep it offline
    #[arg(long, value_name = "FOLDER")]
    ca: PathBuf,
    /// Where tls.crt, tls.key and ca.crt go; replaced where they exist, and read again by whoever uses them
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// For agents of this cluster
    #[arg(long, value_name = "ARN")]
    cluster: Option<ClusterArn>,
    /// For this agent only, not for all of the cluster
    #[arg(long, value_name = "ID", requires = "cluster")]
    agent: Option<AgentId>,
    /// For an operator of this name
    #[arg(long, value_name = "NAME", requires = "roles")]
    operator: Option<String>,
    /// What the operator may do: view, operate, approve; all may look
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', requires = "operator")]
    roles: Vec<Role>,
    /// For a coordinator, by every name or address that it is dialled by
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    coordinator_name: Vec<String>,
    /// How long it is good for
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=825))]
    days: u32,
}

impl Enrol {
    pub(super) fn run(self) -> Result<Exit, Fault> {
        let subject = self.subject()?;
        let now = Clock::system().now();
        let issued = Authority::open_or_make(&self.ca, now)
            .and_then(|authority| authority.issue(&subject, Validity::days(now, self.days)));
        let written = issued.and_then(|issued| issued.write(&self.out).map(|()| issued));
        let issued = written.map_err(|error| fault(&error))?;
        print(&format!("{}: good for {} days, serial number {}", self.out.display(), self.days, issued.serial()));
        Ok(Exit::Done)
    }

    fn subject(&self) -> Result<Subject, Fault> {
        if let Some(cluster) = &self.cluster {
            return Ok(Subject::Caller(Identity::Agent { cluster: cluster.clone(), agent: self.agent.clone() }));
        }
        if let Some(name) = &self.operator {
            if !is_operator_name(name) {
                return Err(Fault::usage(format!("{name:?} is not a name: letters, digits, or any of . - _ @ +")));
            }
            let roles = self.roles.iter().copied().collect();
            return Ok(Subject::Caller(Identity::Operator { name: name.clone(), roles }));
        }
        Ok(Subject::Coordinator(self.coordinator_name.clone()))
    }
}
