// Asks a server of the toy bundle a few questions and prints the answers, and what it can read of the errors, as JSON.
//
//	client HOST:PORT SERVICE_CONFIG
//
// The package kithkinv1 is generated from protos/ before the build (tests/clients/test_clients.py).
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "kithkin.test/client/kithkinv1"
)

type answers map[string]any

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: client HOST:PORT SERVICE_CONFIG"))
	}
	config, err := os.ReadFile(os.Args[2])
	fail(err)
	connection, err := grpc.NewClient(
		os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(string(config)),
	)
	fail(err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	found, err := json.Marshal(ask(ctx, pb.NewRetrievalServiceClient(connection)))
	fail(err)
	fmt.Println(string(found))
}

func ask(ctx context.Context, client pb.RetrievalServiceClient) answers {
	found := answers{}

	since := &pb.Filter{Kind: &pb.Filter_Range{Range: &pb.PropertyRange{
		Property: "year",
		Min:      &pb.PropertyValue{Kind: &pb.PropertyValue_IntValue{IntValue: 1991}},
	}}}
	similar, err := client.SearchSimilarEntities(ctx, &pb.SearchSimilarEntitiesRequest{
		Query:  &pb.SearchSimilarEntitiesRequest_Entity{Entity: &pb.NodeRef{Id: "1"}},
		TopK:   5,
		Filter: since,
	})
	found["similar"] = either(func() any { return results(similar.Results) }, err)

	events := &pb.EventList{Events: []*pb.Event{
		{Entity: &pb.NodeRef{Id: "3"}},
		{Entity: &pb.NodeRef{Id: "4"}, Weight: 2},
	}}
	recommended, err := client.RetrieveEntitiesForUser(ctx, &pb.RetrieveEntitiesForUserRequest{
		Query: &pb.RetrieveEntitiesForUserRequest_Events{Events: events},
		TopK:  3,
	})
	found["recommend"] = either(func() any { return results(recommended.Results) }, err)

	batch, err := client.BatchSearchSimilarEntities(ctx, &pb.BatchSearchSimilarEntitiesRequest{
		Requests: []*pb.SearchSimilarEntitiesRequest{byId("1", 2), byId("99", 2)},
	})
	found["batch"] = either(func() any {
		items := []any{}
		for _, item := range batch.Items {
			items = append(items, either(
				func() any { return results(item.GetResponse().Results) },
				status.FromProto(item.GetError()).Err(),
			))
		}
		return items
	}, err)

	vectors, err := client.EmbedEntities(ctx, &pb.EmbedEntitiesRequest{
		Items: []*pb.EmbedEntityItem{{Query: &pb.EmbedEntityItem_Entity{Entity: &pb.NodeRef{Id: "10"}}}},
	})
	found["embed"] = either(func() any { return vectors.Vectors[0].Values }, err)

	names, token := []string{}, ""
	for {
		page, err := client.ListEntities(ctx, &pb.ListEntitiesRequest{Type: "Tag", PageSize: 3, PageToken: token})
		fail(err)
		for _, node := range page.Nodes {
			names = append(names, node.Name)
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	found["list"] = names

	_, err = client.SearchSimilarEntities(ctx, byId("1", 5000))
	found["too_many"] = readable(err)
	_, err = client.SearchSimilarEntities(ctx, byId("99", 1))
	found["unknown"] = readable(err)
	return found
}

func byId(id string, topK int32) *pb.SearchSimilarEntitiesRequest {
	return &pb.SearchSimilarEntitiesRequest{
		Query: &pb.SearchSimilarEntitiesRequest_Entity{Entity: &pb.NodeRef{Id: id}},
		TopK:  topK,
	}
}

func results(scored []*pb.ScoredNode) any {
	rows := []any{}
	for _, each := range scored {
		rows = append(rows, []any{each.Node.Ref.Type, each.Node.Ref.Id, each.Node.Name, each.Score})
	}
	return rows
}

func either(answer func() any, err error) any {
	if err != nil {
		return readable(err)
	}
	return answer()
}

// readable is what an error tells by its google.rpc details.
func readable(err error) any {
	told := map[string]any{"violations": []any{}}
	failed := status.Convert(err)
	told["code"] = codeName(failed.Code())
	told["message"] = failed.Message()
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			told["reason"], told["domain"] = detail.Reason, detail.Domain
		case *errdetails.BadRequest:
			violations := []any{}
			for _, each := range detail.FieldViolations {
				violations = append(violations, []string{each.Field, each.Description})
			}
			told["violations"] = violations
		case *errdetails.ResourceInfo:
			told["resource"] = []string{detail.ResourceType, detail.ResourceName}
		}
	}
	return told
}

func codeName(code codes.Code) string {
	switch code {
	case codes.InvalidArgument:
		return "INVALID_ARGUMENT"
	case codes.NotFound:
		return "NOT_FOUND"
	default:
		return code.String()
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
