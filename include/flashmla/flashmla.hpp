// FlashMLA for C++20: RAII and exceptions over the C ABI of flashmla.h, header-only. This file includes all of it.
//
//     auto plan = flashmla::DecodePlan::make(flashmla::Problem::decode(h_q, flashmla::kKvBf16_576, max_batch), flashmla::Target());
//     flashmla::HostBuffer schedule(plan.schedule_bytes()), workspace(plan.workspace_bytes());
//     plan.reset(workspace.view());
//     each step:   plan.update(lengths, schedule.view());
//     each layer:  plan.run(args, schedule.view(), workspace.view());
#pragma once

#include <flashmla/decode_plan.hpp>
#include <flashmla/error.hpp>
#include <flashmla/executor.hpp>
#include <flashmla/host_buffer.hpp>
#include <flashmla/info.hpp>
#include <flashmla/ops.hpp>
#include <flashmla/page_pool.hpp>
#include <flashmla/problem.hpp>
#include <flashmla/view.hpp>
