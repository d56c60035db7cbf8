//! Executes plans in a model, from any state that runs and accidents can leave.
//!
//! No step may wait for something that only a later step does. After a plan, the cluster must need no other
//! plan. The same must be true for the plan after a run that was interrupted anywhere.
//!
//! `PGHERD_STORIES` is the number of stories. By default it is small, because the everyday tests run them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use super::{
    model::{Model, before_and_after, own_roles},
    world::{FIVE, ONE, SHARED, SYSTEM, World, steps, told},
};
use crate::{
    cluster::TlsStage,
    contract::MARKER,
    facts::{DataFact, Facts},
    inventory::{HostName, Role},
    plan::{Action, Plan, StepId},
    services::etcd::PatroniKeys,
};

mod story;

use story::*;

/// The state after all steps of `which`.
fn after(model: &Model, plan: &Plan, which: impl Fn(StepId) -> bool) -> Model {
    let mut model = model.clone();
    for (id, step) in plan.steps.iter().enumerate() {
        if which(id) {
            model.do_step(step);
        }
    }
    model
}

/// The first step that can succeed only after a later one.
fn stuck(model: &Model, plan: &Plan) -> Option<StepId> {
    (0..plan.steps.len()).find(|id| {
        let step = &plan.steps[*id];
        if matches!(
            step.action,
            Action::Run(_) | Action::Wake | Action::TakeOver
        ) {
            return false;
        }
        let (before, later) = before_and_after(plan, *id);
        // Some steps wait, and meanwhile the steps that do not depend on them are done. The others look only
        // once.
        let waits = matches!(
            step.action,
            Action::Await(_) | Action::UpdateEtcdMember { .. }
        );
        let state = if waits {
            after(model, plan, |other| !later.contains(&other))
        } else {
            after(model, plan, |other| before.contains(&other))
        };
        !state.can(step)
    })
}

/// Does a part of a plan, like an interrupted run: no step without the steps that it needs.
fn cut_off(model: &Model, plan: &Plan, mut seed: u64) -> Model {
    let mut model = model.clone();
    let mut done = BTreeSet::new();
    for (id, step) in plan.steps.iter().enumerate() {
        // One of four steps is not done. `seed` is used up bit by bit, and then all steps are done.
        let falls = seed & 3 == 3;
        seed >>= 2;
        let ready = step.after.iter().all(|before| done.contains(before));
        if ready && !falls && model.can(step) {
            model.do_step(step);
            done.insert(id);
        }
    }
    model
}

fn plan(model: &Model) -> Result<Plan, TestCaseError> {
    model
        .world
        .up()
        .map_err(|error| TestCaseError::fail(told(&error)))
}

/// Checks a plan, executes it, and checks that nothing is left to do.
fn converges(model: &Model) -> Result<(), TestCaseError> {
    let first = plan(model)?;
    if let Some(id) = stuck(model, &first) {
        return Err(TestCaseError::fail(format!(
            "step {id} waits for ever: {:#?}",
            steps(&first)
        )));
    }
    let mut model = after(model, &first, |_| true);
    // Some things are visible only when etcd answers, or a member leads.
    for _ in 0..3 {
        let next = plan(&model)?;
        if next.is_empty() {
            return Ok(());
        }
        if let Some(id) = stuck(&model, &next) {
            return Err(TestCaseError::fail(format!(
                "a second time, step {id}: {:#?}",
                steps(&next)
            )));
        }
        model = after(&model, &next, |_| true);
    }
    let left = steps(&plan(&model)?);
    Err(TestCaseError::fail(format!(
        "left to do: {left:#?}\nfirst: {:#?}",
        steps(&first)
    )))
}

fn holds(story: &Story) -> Result<(), TestCaseError> {
    let mut model = story.model();
    converges(&model)?;
    for seed in story.cuts {
        model = cut_off(&model, &plan(&model)?, seed);
        converges(&model)?;
    }
    Ok(())
}

/// The number of stories by default.
const FEW: u32 = 12;

fn stories() -> Option<u32> {
    std::env::var("PGHERD_STORIES").ok()?.parse().ok()
}

#[test]
fn every_plan_gets_there_and_so_does_the_one_after_a_cut() {
    let config = ProptestConfig {
        cases: stories().unwrap_or(FEW),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    };
    // The same few stories every day; others on request.
    let mut runner = match stories() {
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
        Some(_) => TestRunner::new(config),
    };
    if let Err(error) = runner.run(&story(), |story| holds(&story)) {
        panic!("{error}");
    }
}

/// The model itself must notice a step that waits for a later one.
#[test]
fn a_wait_for_a_later_step_is_noticed() {
    let mut world = World::settled(FIVE);
    let (keys, members) = (world.found.dcs.clone().unwrap(), world.found.etcd.clone());
    let roles = own_roles(&world);
    world.stop("node1", "patroni");
    world.stop("node2", "patroni");
    world.stop("node3", "patroni");
    let model = Model::new(world, keys, members, roles);
    let mut plan = model.world.plan();
    assert_eq!(stuck(&model, &plan), None);
    let wait = plan
        .steps
        .iter()
        .position(|step| step.name == "await-leader")
        .unwrap();
    assert!(
        wait > 0
            && model
                .world
                .found
                .dcs
                .as_ref()
                .unwrap()
                .initialize
                .as_deref()
                == Some(SYSTEM)
    );
    for start in 0..wait {
        plan.steps[start].after.push(wait);
        plan.steps[wait].after.retain(|before| *before != start);
    }
    assert_eq!(stuck_in_any_order(&model, &plan), Some(wait));
}

/// The same for a plan with its steps in a wrong order.
fn stuck_in_any_order(model: &Model, plan: &Plan) -> Option<StepId> {
    let waits = |id: StepId, on: StepId| plan.steps[id].after.contains(&on);
    (0..plan.steps.len()).find(|id| {
        let step = &plan.steps[*id];
        let state = after(model, plan, |other| other != *id && !waits(other, *id));
        matches!(step.action, Action::Await(_)) && !state.can(step)
    })
}
