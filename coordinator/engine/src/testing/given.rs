//! Stands in for an earlier step, so that one step can be tested on its own.

use std::marker::PhantomData;

use serde::Serialize;
use serde_json::Value;

use crate::cx::Cx;
use crate::failure::{Failure, codes};
use crate::ids::StepId;
use crate::step::{Domain, Gate, Reversal, Settled, Step};

/// A step with the id, place and output type of `S` that does nothing and hands over a given output.
pub struct Given<D: Domain, S> {
    output: Value,
    witness: Option<D::Witness>,
    stands_for: PhantomData<fn() -> S>,
}

impl<D: Domain, S: Step<D>> Given<D, S> {
    /// Hands over `output`.
    ///
    /// # Panics
    /// If the output cannot be written as JSON.
    pub fn new(output: &S::Output) -> Given<D, S>
    where
        S::Output: Serialize,
    {
        let output = serde_json::to_value(output).expect("an output that can be journaled");
        Given { output, witness: None, stands_for: PhantomData }
    }

    /// In place of the pivot: arms, and settles as happened with `witness`.
    pub fn witnessed(mut self, witness: D::Witness) -> Given<D, S> {
        self.witness = Some(witness);
        self
    }
}

impl<D: Domain, S: Step<D>> Step<D> for Given<D, S> {
    const ID: StepId = S::ID;
    const TITLE: &'static str = S::TITLE;
    const REVERSAL: Reversal = S::REVERSAL;
    type Output = Value;

    async fn check(&self, _: &Cx<'_, D>) -> Result<Gate, Failure> {
        Ok(Gate::Open)
    }

    async fn run(&self, cx: &Cx<'_, D>) -> Result<Value, Failure> {
        if let (Some(witness), Reversal::Pivot) = (&self.witness, S::REVERSAL)
            && !cx.state().committed()
        {
            cx.arm().await?;
            cx.settle(Settled::Happened(witness.clone())).await?;
        }
        Ok(self.output.clone())
    }

    async fn verify(&self, _: &Cx<'_, D>, _: &Value) -> Result<(), Failure> {
        Ok(())
    }

    async fn undo(&self, cx: &Cx<'_, D>) -> Result<(), Failure> {
        match cx.state().committed() {
            false => Ok(()),
            true => Err(Failure::permanent(codes::CANNOT_ARM, "undoing what cannot be undone")),
        }
    }
}
