//! The generated types of the operator service: the only file beside `service.rs`'s use of them that names them.

pub(crate) use proto::wire::operator_server::{Operator as OperatorRpc, OperatorServer};
pub(crate) use proto::wire::{
    AgentsRequest, AskRequest, Document, SpecRequest, StartRequest, Started, StatusRequest, UpgradeRequest,
    WatchRequest,
};
