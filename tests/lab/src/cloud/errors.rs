//! What an API call is refused with: AWS's codes, HTTP statuses and texts. Nothing here decides when.

/// A refusal as the wire carries it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct Refusal {
    /// AWS's code, `DBClusterNotFoundFault` for example.
    pub(crate) code: String,
    /// HTTP status.
    pub(crate) status: u16,
    /// Text for a person.
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: &str, status: u16, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), status, message: message.into() }
    }

    /// A parameter's value that the service does not take.
    pub(crate) fn value(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterValue", 400, message)
    }

    /// Parameters that do not go together.
    pub(crate) fn combination(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterCombination", 400, message)
    }

    pub(crate) fn missing(name: &str) -> Self {
        Self::new("MissingParameter", 400, format!("The request must contain the parameter {name}."))
    }

    pub(crate) fn cluster_not_found(identifier: &str) -> Self {
        Self::new("DBClusterNotFoundFault", 404, format!("DBCluster {identifier} not found."))
    }

    pub(crate) fn instance_not_found(identifier: &str) -> Self {
        Self::new("DBInstanceNotFound", 404, format!("DBInstance {identifier} not found."))
    }

    pub(crate) fn group_not_found(name: &str) -> Self {
        Self::new("DBParameterGroupNotFound", 404, format!("DBParameterGroup not found: {name}"))
    }

    pub(crate) fn cluster_group_not_found(name: &str) -> Self {
        Self::new("DBClusterParameterGroupNotFound", 404, format!("DBClusterParameterGroup not found: {name}"))
    }

    pub(crate) fn snapshot_not_found(name: &str) -> Self {
        Self::new("DBClusterSnapshotNotFoundFault", 404, format!("DBClusterSnapshot not found: {name}"))
    }

    pub(crate) fn deployment_not_found(identifier: &str) -> Self {
        Self::new("BlueGreenDeploymentNotFoundFault", 404, format!("Blue/green deployment {identifier} not found."))
    }

    pub(crate) fn cluster_state(message: impl Into<String>) -> Self {
        Self::new("InvalidDBClusterStateFault", 400, message)
    }

    pub(crate) fn instance_state(message: impl Into<String>) -> Self {
        Self::new("InvalidDBInstanceState", 400, message)
    }

    pub(crate) fn endpoint_state(message: impl Into<String>) -> Self {
        Self::new("InvalidDBClusterEndpointStateFault", 400, message)
    }

    pub(crate) fn deployment_state(message: impl Into<String>) -> Self {
        Self::new("InvalidBlueGreenDeploymentStateFault", 400, message)
    }

    pub(crate) fn group_state(message: impl Into<String>) -> Self {
        Self::new("InvalidDBParameterGroupState", 400, message)
    }

    /// The service's own trouble.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new("InternalFailure", 500, message)
    }
}

/// What an operation answers.
pub(crate) type Answer<T> = Result<T, Refusal>;
